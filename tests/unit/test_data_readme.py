"""The examples of `data/README.md` run, in its order."""

import re
from pathlib import Path

from data_set_folders import make_mimic, make_ptb_xl
from test_builders import make_ecg_chat, make_ecg_qa

import ecgbyte_hf.data

README = Path(ecgbyte_hf.data.__file__).with_name("README.md")


def test_examples(tmp_path, monkeypatch, capsys):
    make_ptb_xl(tmp_path / "ptb-xl")
    make_mimic(tmp_path / "mimic-iv-ecg", signals=True)
    make_ecg_qa(tmp_path / "ecgqa")
    make_ecg_chat(tmp_path / "ecg-chat")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) == 7 and names["signal"].shape == (12, 1000)
    assert "answer_text" in names["for_people"]["train"].features
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "['NORM']" and printed[2] == "Sinus rhythm. Normal ECG, all of it"


def test_every_data_set_and_configuration_is_described():
    text = README.read_text(encoding="utf-8")
    for name, (module, class_name) in ecgbyte_hf.data.BUILDERS.items():
        assert f"| `{name}` |" in text
        builder = getattr(__import__(module, fromlist=[class_name]), class_name)
        for config in builder.builder_configs:
            assert config in text or name == "ecg_qa", config
