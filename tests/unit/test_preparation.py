"""The job that prepares: killed at any moment and started again, it leaves the same bytes."""

import hashlib
import json
import logging
import multiprocessing
import os
import random
import signal as signals_of_unix
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ecgbyte_hf.data import preparation as module
from ecgbyte_hf.data.preparation import JOB_FOLDER, PrepareJob, RecordSource, prepare
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sources import prepare_synthetic
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

NUM_RECORDS = 150
SBATCH = """#!/usr/bin/env bash
set -eu
script="${@: -1}"
range=$(sed -n 's/^#SBATCH --array=\\([0-9]*\\)-\\([0-9]*\\).*/\\1 \\2/p' "$script")
for task in $(seq $range); do
    SLURM_NODELIST=localhost SLURM_NODEID=0 SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_CPU=2048 \\
        SLURM_ARRAY_TASK_ID=$task bash "$script" >&2
done
echo "Submitted batch job 7"
"""


def extractor():
    return EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II", "V2"])


def run(folder, **changes):
    settings = {"num_records": NUM_RECORDS, "seed": 4, "records_per_part": 8, **changes}
    return prepare_synthetic(folder, feature_extractor=extractor(), **settings)


def hashes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of a run without a break."""
    folder = tmp_path_factory.mktemp("unbroken") / "prepared"
    run(folder)
    return folder


def _run_in_group(folder, num_proc):
    """In a process of its own, with its workers in one group, so that all of them can be killed together."""
    os.setsid()
    run(folder, num_proc=num_proc)


def _killed_task(*_):
    os.kill(os.getpid(), signals_of_unix.SIGKILL)


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or ") Z " not in state.read_text()  # nobody may wait for it here


class TestKilled:
    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
    def test_at_twenty_random_moments(self, unbroken, tmp_path, monkeypatch):
        # The server that forks does not inherit the path before Python 3.13, and would preload nothing.
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.getcwd(), *sys.path])))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["ecgbyte_hf.data.sources", "scipy.signal", "ecgbyte_hf.models.feature_extraction_ecg_byte"]
        )
        expected = hashes(unbroken)
        draw, states = random.Random(0), []
        for moment in range(20):
            folder = tmp_path / str(moment)
            wanted = draw.randrange(-1, 19)
            process = context.Process(target=_run_in_group, args=(folder, 2 if moment % 5 == 4 else 1))
            process.start()
            while self._state(folder) < wanted and process.is_alive():
                time.sleep(0.001)
            time.sleep(draw.uniform(0.0, 0.05))  # 8 records take some 0.02 s
            try:
                os.killpg(process.pid, signals_of_unix.SIGKILL)
            except ProcessLookupError:  # finished, or killed before it had a group
                process.kill()
            process.join()
            states.append(self._state(folder))
            run(folder)
            assert hashes(folder) == expected, (moment, states[-1])
        assert sum(0 < parts < 19 for parts in states) >= 8, states  # most were killed in the midst of it

    @staticmethod
    def _state(folder):
        """How many parts were whole; -1 before it began."""
        if (folder / "report.json").exists():
            return 19
        return len(list((folder / JOB_FOLDER).glob("part-*.json"))) if folder.exists() else -1

    @pytest.mark.parametrize("step", range(6))
    def test_between_any_two_steps_of_the_end(self, unbroken, tmp_path, monkeypatch, step):
        """The end puts files in place one after another; it is broken off before each kind of step."""
        calls = []

        def stop_at(name, wanted):
            original = getattr(module, name) if hasattr(module, name) else getattr(module.shutil, name)

            def stopping(*arguments, **named):
                calls.append(name)
                if (name, calls.count(name)) == wanted:
                    raise KeyboardInterrupt
                return original(*arguments, **named)

            return stopping

        moments = [("_write_table", 4), ("_write_table", 5), ("_write_table", 6), ("write_json", 21)]
        moments += [("write_json", 22), ("rmtree", 1)]
        for name in ("_write_table", "write_json"):
            monkeypatch.setattr(module, name, stop_at(name, moments[step]))
        monkeypatch.setattr(module.shutil, "rmtree", stop_at("rmtree", moments[step]))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "p")
        monkeypatch.undo()
        run(tmp_path / "p")
        assert hashes(tmp_path / "p") == hashes(unbroken)

    def test_whole_parts_are_not_made_again(self, unbroken, tmp_path, monkeypatch):
        made = []
        clean = module._clean_one

        def counting(feature_extractor, duration, source):
            if len(made) == 100:
                raise KeyboardInterrupt
            made.append(source.ecg_id)
            return clean(feature_extractor, duration, source)

        monkeypatch.setattr(module, "_clean_one", counting)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        with pytest.raises(EcgDataError, match="holds no report.json"):
            PreparedData(tmp_path)
        made[:] = []
        monkeypatch.setattr(module, "_clean_one", lambda *given: made.append(given[2].ecg_id) or clean(*given))
        run(tmp_path)
        assert made == list(range(97, NUM_RECORDS + 1))  # 12 parts of 8 were whole
        made[:] = []
        run(tmp_path)
        assert made == [] and hashes(tmp_path) == hashes(unbroken)

    @pytest.mark.parametrize("damage", ["cut", "gone"])
    def test_a_damaged_part_is_made_again(self, unbroken, tmp_path, monkeypatch, damage):
        finish = PrepareJob.finish
        monkeypatch.setattr(PrepareJob, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        part = tmp_path / JOB_FOLDER / "part-00003.parquet"
        if damage == "cut":
            part.write_bytes(part.read_bytes()[:-1])
        else:
            part.unlink()
        monkeypatch.setattr(PrepareJob, "finish", finish)
        run(tmp_path)
        assert hashes(tmp_path) == hashes(unbroken)


class TestAnotherJob:
    def test_parts_of_another_job_are_not_taken(self, unbroken, tmp_path, monkeypatch):
        """As they lie there when --overwrite was killed while it removed them."""
        finish = PrepareJob.finish
        monkeypatch.setattr(PrepareJob, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, seed=5)
        monkeypatch.setattr(PrepareJob, "finish", finish)
        old = {path.name: path.read_bytes() for path in (tmp_path / JOB_FOLDER).glob("part-*")}
        (tmp_path / JOB_FOLDER / "job.json").unlink()
        run(tmp_path)
        assert hashes(tmp_path) == hashes(unbroken)
        # Even beside this job's own plan they are another's.
        monkeypatch.setattr(PrepareJob, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "again")
        for name, content in old.items():
            (tmp_path / "again" / JOB_FOLDER / name).write_bytes(content)
        monkeypatch.setattr(PrepareJob, "finish", finish)
        run(tmp_path / "again")
        assert hashes(tmp_path / "again") == hashes(unbroken)

    @pytest.mark.parametrize("step", range(4))
    def test_an_interrupted_overwrite_goes_on(self, unbroken, tmp_path, monkeypatch, step):
        run(tmp_path, num_records=20)
        removed = []
        rmtree = module.shutil.rmtree

        def stopping(path, **options):
            if len(removed) == step:
                raise KeyboardInterrupt
            removed.append(path)
            rmtree(path, **options)

        monkeypatch.setattr(module.shutil, "rmtree", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, overwrite=True)
        monkeypatch.undo()
        if step < 3:
            with pytest.raises(EcgDataError, match="a job that was being removed; .* --overwrite"):
                run(tmp_path)
        run(tmp_path, overwrite=True)
        assert hashes(tmp_path) == hashes(unbroken)

    def test_another_version(self, tmp_path, monkeypatch):
        run(tmp_path, num_records=20)
        newer = {**module.versions(), "ecgbyte-hf": "9.9"}
        monkeypatch.setattr(module, "versions", lambda: newer)
        with pytest.raises(EcgDataError, match="what another job prepared"):
            run(tmp_path, num_records=20)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"bytes": 3}'])
    def test_a_damaged_note_of_a_part(self, unbroken, tmp_path, monkeypatch, content):
        finish = PrepareJob.finish
        monkeypatch.setattr(PrepareJob, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        (tmp_path / JOB_FOLDER / "part-00002.json").write_text(content)
        monkeypatch.setattr(PrepareJob, "finish", finish)
        run(tmp_path)
        assert hashes(tmp_path) == hashes(unbroken)

    def test_begun_with_something_else(self, tmp_path, monkeypatch):
        monkeypatch.setattr(PrepareJob, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        with pytest.raises(EcgDataError, match="begun with other .*questions.*; choose another folder, or .*--overwr"):
            run(tmp_path, seed=5)

    def test_finished_with_something_else(self, unbroken, tmp_path):
        run(tmp_path, num_records=20)
        before = hashes(tmp_path)
        with pytest.raises(EcgDataError, match="what another job prepared"):
            run(tmp_path)
        assert hashes(tmp_path) == before
        run(tmp_path, overwrite=True)
        assert hashes(tmp_path) == hashes(unbroken)

    def test_what_nobody_prepared_is_left_alone(self, tmp_path):
        (tmp_path / "questions").mkdir()
        (tmp_path / "questions" / "mine.txt").write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(EcgDataError, match="of something else"):
                run(tmp_path, overwrite=overwrite)
        assert (tmp_path / "questions" / "mine.txt").read_text() == "mine"

    def test_a_changed_recording_is_seen(self, test_data, tmp_path):
        for ending in (".hea", ".dat"):
            original = test_data / f"ptbxl/records500/00000/00001_hr{ending}"
            (tmp_path / f"00001_hr{ending}").write_bytes(original.read_bytes())
        sources = [RecordSource(1, str(tmp_path / "00001_hr"))]
        settings = {
            "feature_extractor": EcgByteFeatureExtractor(),
            "template_options": {},
            "duration": 10.0,
            "arguments": {},
        }
        prepare(sources, {"train": []}, tmp_path / "p", **settings)
        prepare(sources, {"train": []}, tmp_path / "p", **settings)
        os.utime(tmp_path / "00001_hr.dat", (1, 1))
        with pytest.raises(EcgDataError, match="files that have changed since"):
            prepare(sources, {"train": []}, tmp_path / "p", **settings)

    def test_a_part_that_was_taken_away(self, tmp_path):
        run(tmp_path)
        (tmp_path / "records" / "part-00002.parquet").unlink()
        with pytest.raises(EcgDataError, match="not all the files"):
            run(tmp_path)

    def test_no_record_left_leaves_nothing_behind(self, tmp_path):
        flat = RecordSource(1, None, None, np.zeros((2, 1000)), 100.0, ("II", "V2"))
        settings = {"feature_extractor": extractor(), "template_options": {}, "duration": 10.0, "arguments": {}}
        with pytest.raises(EcgDataError, match="1 were refused: .*The first: .*flat leads"):
            prepare([flat], {"train": []}, tmp_path, **settings)
        with pytest.raises(EcgDataError, match="got no record to prepare"):
            prepare([], {"train": []}, tmp_path, **settings)
        run(tmp_path, num_records=20)

    @pytest.mark.parametrize("changes", [{"records_per_part": 0}, {"num_proc": 0}, {"duration": float("inf")}])
    def test_numbers_that_cannot_be(self, tmp_path, changes):
        with pytest.raises(EcgDataError, match="at least 1"):
            run(tmp_path, **changes)


class TestNotForeseen:
    def test_an_error_of_the_code_is_a_line_too(self, tmp_path, monkeypatch, caplog):
        """A record that makes a library fail must not end a job of days."""
        load = module.RecordSource.load

        def failing(self):
            if self.ecg_id == 3:
                raise IndexError("list index\nout of range")
            return load(self)

        monkeypatch.setattr(module.RecordSource, "load", failing)
        signal = np.random.default_rng(0).normal(size=(2, 1000))
        sources = [RecordSource(i, None, None, signal, 100.0, ("II", "V2")) for i in (1, 2, 3, 4)]
        with caplog.at_level(logging.ERROR):
            prepared = prepare(
                sources,
                {"train": []},
                tmp_path,
                feature_extractor=extractor(),
                template_options={},
                duration=10.0,
                arguments={},
            )
        assert prepared.ecg_ids == [1, 2, 4]
        (line,) = json.loads((tmp_path / "report.json").read_text())["refused"]
        assert (line["ecg_id"], line["record"], line["error"]) == (3, "record 3", "IndexError")
        assert "not foreseen" in line["reason"] and "list index out of range" in line["reason"]
        assert "record 3: an error that nobody foresaw" in caplog.text and "Traceback" in caplog.text


class TestMemory:
    def test_stays_flat(self, tmp_path):
        """Signals on their way are bounded, whatever the number of records: those of a few chunks and a row group."""
        alive = {"now": 0, "most": 0}

        class Counted(np.ndarray):
            def __array_finalize__(self, parent):
                alive["now"] += 1
                alive["most"] = max(alive["most"], alive["now"])

            def __del__(self):
                alive["now"] -= 1

        class Extractor(EcgByteFeatureExtractor):
            def clean(self, record):
                return super().clean(record).view(Counted)

        sources = [
            module.RecordSource(i, None, None, np.random.default_rng(i).normal(size=(2, 200)), 100.0, ("II", "V2"))
            for i in range(400)
        ]
        job = PrepareJob.plan(
            sources,
            {"train": []},
            tmp_path,
            feature_extractor=extractor(),
            template_options={},
            duration=2.0,
            arguments={},
        )
        job.feature_extractor = Extractor(profile="none", sampling_rate=100, leads=["II", "V2"])
        job.write_parts(range(job.num_parts))
        assert 16 <= alive["most"] < 64


class TestParts:
    def plan(self, test_data, folder):
        records = sorted((test_data / "ptbxl/records500/00000").glob("*.hea"))[:6]
        sources = [RecordSource(i, str(path.with_suffix("")), f"p{i}") for i, path in enumerate(records)]
        return PrepareJob.plan(
            sources,
            {"train": []},
            folder,
            feature_extractor=EcgByteFeatureExtractor(),
            template_options={},
            duration=10.0,
            arguments={},
            records_per_part=2,
        )

    def test_in_any_order_by_another_process(self, test_data, tmp_path):
        whole = self.plan(test_data, tmp_path / "whole")
        whole.write_parts(range(3))
        whole.finish()
        self.plan(test_data, tmp_path / "parts")
        for index in (2, 0):
            PrepareJob.load(tmp_path / "parts").write_parts([index])
        job = PrepareJob.load(tmp_path / "parts")
        assert job.num_parts_done() == 2
        with pytest.raises(EcgDataError, match="1 of 3 parts are not there yet, the first is 1"):
            job.finish()
        job.write_parts(range(3))
        assert job.finish().patients == {i: f"p{i}" for i in range(6)}
        assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")

    def test_two_tasks_of_datatrove(self, test_data, tmp_path):
        from ecgbyte_hf.data.cluster import on_this_machine

        whole = self.plan(test_data, tmp_path / "whole")
        whole.write_parts(range(3))
        whole.finish()
        job = self.plan(test_data, tmp_path / "tasks")
        on_this_machine(2)(job)
        assert job.num_parts_done() == 3
        job.finish()
        assert hashes(tmp_path / "tasks") == hashes(tmp_path / "whole")

    @pytest.mark.slow
    def test_an_array_of_slurm(self, test_data, tmp_path, monkeypatch):
        """Slurm itself is a stand-in here: `sbatch` that runs the tasks of the array one after another."""
        from ecgbyte_hf.data.cluster import on_slurm

        commands = tmp_path / "bin"
        commands.mkdir()
        for name, lines in (("sbatch", SBATCH), ("scontrol", "#!/bin/sh\necho localhost\n")):
            (commands / name).write_text(lines)
            (commands / name).chmod(0o755)
        places = [str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]
        monkeypatch.setenv("PATH", os.pathsep.join(places))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.getcwd(), *sys.path])))
        whole = self.plan(test_data, tmp_path / "whole")
        whole.write_parts(range(3))
        whole.finish()
        job = self.plan(test_data, tmp_path / "tasks")
        looks = []
        on_slurm(2, partition="cpu", time_limit="01:00:00", wait=looks.append, with_srun=False)(job)
        assert looks == [] and job.num_parts_done() == 3
        script = (tmp_path / "tasks" / JOB_FOLDER / "datatrove" / "launch_script.slurm").read_text()
        assert "#SBATCH --partition=cpu" in script and "#SBATCH --array=0-1" in script
        job.finish()
        assert hashes(tmp_path / "tasks") == hashes(tmp_path / "whole")

    def test_waiting_for_tasks_elsewhere(self, test_data, tmp_path, capsys):
        from ecgbyte_hf.data.cluster import wait_for_parts

        job = self.plan(test_data, tmp_path)
        looks = []

        def another_machine(seconds):
            looks.append(seconds)
            job.write_parts([len(looks) - 1])

        wait_for_parts(job, another_machine)
        assert len(looks) == 3 and job.num_parts_done() == 3
        assert "3/3" in capsys.readouterr().err

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="finds the processes by their parent")
    def test_a_killed_task_is_an_error(self, test_data, tmp_path, monkeypatch):
        from ecgbyte_hf.data import cluster

        monkeypatch.setattr(cluster, "_run_local_task", _killed_task)
        with pytest.raises(EcgDataError, match="a task was killed"):
            cluster.on_this_machine(2)(self.plan(test_data, tmp_path))

    def test_workers_end_with_the_process_that_was_killed(self):
        command = "import os, sys; from ecgbyte_hf.data.workers import worker_pool\n"
        command += "pool = worker_pool(2)\n"
        command += "print(*{future.result() for future in [pool.submit(os.getpid) for _ in range(50)]}, flush=True)\n"
        command += "sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", command], **pipes) as process:
            workers = [int(pid) for pid in process.stdout.readline().split()]
            process.kill()
            process.wait()
        deadline = time.monotonic() + 20
        while any(_is_running(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers and not any(_is_running(pid) for pid in workers)

    def test_simulated_records_are_for_one_machine(self, tmp_path):
        from ecgbyte_hf.data.cluster import on_this_machine

        with pytest.raises(EcgDataError, match="only recordings in files"):
            run(tmp_path, engine=on_this_machine(2))

    def test_nothing_planned(self, tmp_path):
        with pytest.raises(EcgDataError, match="holds no job that was planned"):
            PrepareJob.load(tmp_path)
