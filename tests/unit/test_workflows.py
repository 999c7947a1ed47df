"""Files for other machines: workflows that can be read, and the ends of the supported ranges."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_and_small_in_rights(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"} and workflow[True]  # YAML 1.1 reads the key `on` so
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            for script in re.findall(r"(scripts/[\w.]+)", step.get("run", "")):
                assert (ROOT / script).is_file()


def test_there_is_a_wheel_for_every_system():
    wheels = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())
    targets = {one["target"] for one in wheels["jobs"]["core"]["strategy"]["matrix"]["include"]}
    assert targets == {"x86_64", "aarch64", "universal2-apple-darwin", "x64"}
    assert re.search(r"pyo3 = .*abi3-py311", (ROOT / "rust_bpe/Cargo.toml").read_text())


class TestRanges:
    """`scripts/range_constraints.py`, which `scripts/test_ranges.sh` installs by."""

    def run(self, *arguments):
        command = [sys.executable, str(ROOT / "scripts/range_constraints.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def test_both_ends(self):
        lowest = self.run("lowest", "transformers", "huggingface_hub").stdout
        assert re.fullmatch(r"transformers==[\d.]+\nhuggingface_hub==[\d.]+\n", lowest)
        assert re.fullmatch(r"trl<2,>=[\d.]+\n", self.run("newest", "trl").stdout)

    def test_what_is_no_range(self):
        refused = self.run("lowest", "no-such-package")
        assert refused.returncode == 1 and refused.stderr == "setup.py has no range of no-such-package\n"
        assert self.run("middle", "trl").returncode == 1

    def test_packages_of_the_script_are_known(self):
        names = re.search(r'^packages="(.*)"$', (ROOT / "scripts/test_ranges.sh").read_text(), re.MULTILINE)[1]
        module = runpy.run_path(str(ROOT / "scripts/range_constraints.py"))
        known = module["ranges"]((ROOT / "setup.py").read_text())
        assert {name.replace("_", "-") for name in names.split()} <= set(known)
