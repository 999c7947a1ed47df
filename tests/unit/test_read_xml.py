"""XML of any recorder: what a document may not ask for, whichever reader it is meant for."""

import sys
from itertools import pairwise

import pytest
from readers import refuse
from test_read_aecg import document as aecg
from test_read_muse import document as muse
from test_read_sierra import document as sierra

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal import xml_file
from ecgbyte_hf.signal.records import read_ecg

DOCUMENTS = {"AnnotatedECG": aecg(), "RestingECG": muse(doctype=""), "restingecgdata": sierra()}
LAUGHS = '<!ENTITY a "ha">' + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))
FORBIDDEN = {
    "billion laughs": f"<!DOCTYPE ROOT [{LAUGHS}]>",
    "external entity": '<!DOCTYPE ROOT [<!ENTITY secret SYSTEM "FILE">]>',
    "parameter entity": '<!DOCTYPE ROOT [<!ENTITY % more SYSTEM "FILE"> %more;]>',
    "external DTD": '<!DOCTYPE ROOT SYSTEM "FILE">',
    "public DTD": '<!DOCTYPE ROOT PUBLIC "-//GE//DTD//EN" "restecg.dtd">',
    "DTD by address": '<!DOCTYPE ROOT SYSTEM "http://127.0.0.1:1/restecg.dtd">',
    "MUSE's own with entities": f'<!DOCTYPE ROOT SYSTEM "restecg.dtd" [{LAUGHS}]>',
    "MUSE's own with a file": '<!DOCTYPE ROOT SYSTEM "restecg.dtd" [<!ENTITY secret SYSTEM "FILE">]>',
}


def with_doctype(root: str, doctype: str, place: str) -> str:
    prolog, start, rest = DOCUMENTS[root].partition(f"<{root}")
    opening, end, content = rest.partition(">")
    use = "&j;" if "ENTITY j" in doctype else "&secret;" if "secret" in doctype else ""
    return prolog + doctype.replace("ROOT", root).replace("FILE", place) + start + opening + end + use + content


@pytest.mark.parametrize("root", DOCUMENTS)
@pytest.mark.parametrize("attack", FORBIDDEN)
def test_entities_and_document_types_are_refused(tmp_path, root, attack):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    path = tmp_path / "ecg.xml"
    path.write_text(DOCUMENTS[root])
    assert read_ecg(path).signal.size
    path.write_text(with_doctype(root, FORBIDDEN[attack], secret.as_uri()))
    error = refuse(path, EcgFileError, "the XML has an entity, a document type or a reference to another file")
    assert "the secret" not in str(error)


def test_the_document_type_of_muse_is_not_looked_for(tmp_path):
    (tmp_path / "restecg.dtd").write_text("<!ENTITY secret 'read'><!ELEMENT RestingECG EMPTY>")
    path = tmp_path / "ecg.xml"
    path.write_text(muse())
    assert read_ecg(path).source["format"] == "muse"
    path.write_text(muse().replace("Confirmed", "&secret;"))
    refuse(path, EcgFileError, "not XML|has an entity")


def test_a_file_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "ecg.xml"
    path.write_text(muse())
    with path.open("r+b") as file:
        file.truncate(xml_file.LARGEST_XML + 1)  # sparse: it takes no room
    refuse(path, EcgFileError, "got 33554433 bytes, expected at most 33554432")


@pytest.mark.parametrize("root", DOCUMENTS)
def test_without_the_package(tmp_path, monkeypatch, root):
    path = tmp_path / "ecg.xml"
    path.write_text(DOCUMENTS[root])
    monkeypatch.setitem(sys.modules, "defusedxml.ElementTree", None)
    refuse(path, EcgFileError, r"needs the package defusedxml.*pip install 'ecgbyte-hf\[xml\]'")


def test_the_root_tells_the_format(tmp_path):
    for name, text in {
        "comment.xml": f"<!-- <RestingECG> --><?x y?>\n{aecg().partition('?>')[2]}",
        "mark.xml": "\ufeff" + aecg(),
        "upper.XML": aecg(),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_ecg(tmp_path / name).source["format"] == "aecg"
    (tmp_path / "wide.xml").write_text(muse().replace("ISO-8859-1", "UTF-16"), encoding="utf-16")
    assert read_ecg(tmp_path / "wide.xml").source["format"] == "muse"
    (tmp_path / "prefix.xml").write_text('<a:RestingECG xmlns:a="b"></a:RestingECG>')
    refuse(tmp_path / "prefix.xml", EcgFileError, "got 0 rhythm waveforms")
    for text in ("<svg/>", "", "no XML", "<!DOCTYPE", "<!-- <RestingECG/>"):
        (tmp_path / "other.xml").write_text(text)
        refuse(tmp_path / "other.xml", EcgFileError, "of no known format")
    (tmp_path / "other.xml").write_text("<svg/>")
    refuse(tmp_path / "other.xml", EcgFileError, "got the root element 'svg', expected 'RestingECG'", format="muse")
    (tmp_path / "other.xml").write_bytes(b'<?xml version="1.0" encoding="nobody-knows"?><RestingECG/>')
    refuse(tmp_path / "other.xml", EcgFileError, "not XML")
