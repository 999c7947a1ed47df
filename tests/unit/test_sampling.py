"""The draws of the records that a tokenizer is learnt from."""

import json
import sys

import numpy as np
import pytest

import rust_bpe
from ecgbyte_hf import cli
from ecgbyte_hf.data import sampling
from ecgbyte_hf.data.calibration import percentile_calibration
from ecgbyte_hf.data.morphology import FeatureTable
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sampling import (
    cluster_records,
    coarse_grid,
    draw_clusters,
    draw_stratified,
    draw_uniform,
    elbow,
    principal_components,
    read_record_list,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer
from ecgbyte_hf.training.compare_draws import compare_draws, comparison_table
from ecgbyte_hf.training.train_tokenizer import train_tokenizer


def blobs(sizes, *, num_features=6, spread=0.05, seed=0, first_id=1):
    """Records around centres that lie 5 or more apart."""
    rng = np.random.default_rng(seed)
    centres = 10.0 * np.linalg.qr(rng.normal(size=(max(num_features, len(sizes)), num_features)))[0][: len(sizes)]
    if len(sizes) > num_features:
        centres = rng.permutation(np.arange(len(sizes)))[:, None] * 10.0 * np.ones(num_features)
    belongs = np.repeat(np.arange(len(sizes)), sizes)
    values = centres[belongs] + spread * rng.normal(size=(len(belongs), num_features))
    order = rng.permutation(len(belongs))
    columns = tuple(f"II_{number}" for number in range(num_features))
    ids = np.arange(first_id, first_id + len(belongs))
    return FeatureTable(ids, values[order].astype(np.float32), columns), belongs[order]


class TestUniform:
    def test_is_seeded_without_replacement_and_free_of_order(self):
        ids = list(range(10, 110))
        draw = draw_uniform(ids, 30, seed=3)
        assert draw.ecg_ids == tuple(sorted(set(draw.ecg_ids))) and len(draw.ecg_ids) == 30
        assert set(draw.ecg_ids) <= set(ids) and (draw.method, draw.num_candidates) == ("uniform", 100)
        assert draw == draw_uniform(reversed(ids), 30, seed=3) == draw_uniform(ids + ids, 30, seed=3)
        assert draw.ecg_ids != draw_uniform(ids, 30, seed=4).ecg_ids
        assert draw_uniform(ids, 100).ecg_ids == tuple(ids)

    def test_every_record_is_as_likely(self):
        """The paper draws n of the first n + 1: the rest would never come."""
        counts = np.bincount([n for seed in range(800) for n in draw_uniform(range(20), 5, seed=seed).ecg_ids])
        assert len(counts) == 20
        # 200 expected; the standard deviation of a binomial(800, 1/4) is 12.2.
        assert np.abs(counts - 200).max() < 5 * 12.2

    @pytest.mark.parametrize("num_records", [0, -1, 21])
    def test_too_many_or_too_few(self, num_records):
        with pytest.raises(EcgDataError, match=f"cannot draw {num_records} of 20 records; expected from 1 to 20"):
            draw_uniform(range(20), num_records)


class TestClusters:
    @pytest.mark.parametrize("sizes", [(40, 40, 40), (60, 25, 10, 5), (30, 30, 30, 30, 30, 30, 30)])
    def test_separate_blobs_are_found(self, sizes):
        table, belongs = blobs(sizes)
        clusters = cluster_records(table, max_clusters=40)
        assert clusters.elbow_k == clusters.silhouette_k == clusters.num_clusters == len(sizes)
        assert clusters.sizes == sorted(sizes, reverse=True) and clusters.algorithm == "kmeans"
        assert len(set(zip(belongs.tolist(), clusters.labels.tolist(), strict=True))) == len(sizes)
        best = {fit.k: fit.silhouette for fit in clusters.fits}[len(sizes)]
        assert best > 0.9 and best == max(fit.silhouette for fit in clusters.fits)

    def test_the_smaller_of_elbow_and_silhouette_is_taken(self, monkeypatch):
        table, _ = blobs((40, 40, 40, 40, 40))
        monkeypatch.setattr(sampling._KSearch, "elbow_k", lambda self: 4)
        assert cluster_records(table, max_clusters=20).num_clusters == 4
        monkeypatch.setattr(sampling._KSearch, "elbow_k", lambda self: 8)
        assert cluster_records(table, max_clusters=20).num_clusters == 5

    def test_seeded(self):
        table = noise(120)
        one, same, other = (cluster_records(table, seed=seed, max_clusters=12) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.labels, same.labels)
        assert one.fits == same.fits != other.fits

    def test_the_largest_comes_first_and_sizes_add_up(self):
        clusters = cluster_records(noise(90), num_clusters=7)
        assert clusters.num_clusters == 7 and sum(clusters.sizes) == 90
        assert clusters.sizes == sorted(clusters.sizes, reverse=True) and min(clusters.sizes) > 0

    def test_a_given_k_is_tried_alone(self):
        clusters = cluster_records(noise(50), num_clusters=2)
        assert [fit.k for fit in clusters.fits] == [2] and clusters.num_clusters == 2
        assert clusters.algorithm == "kmeans"

    def test_dbscan_only_where_fewer_than_three_come_out(self, monkeypatch):
        """Two crescents around a third: k-means sees 2, density 3 and some noise."""
        table, belongs = blobs((200, 100, 60), num_features=2, spread=0.01)
        monkeypatch.setattr(sampling._KSearch, "elbow_k", lambda self: 2)
        clusters = cluster_records(table, max_clusters=10)
        assert (clusters.algorithm, clusters.num_clusters, clusters.sizes) == ("dbscan", 3, [200, 100, 60])
        assert len(set(zip(belongs.tolist(), clusters.labels.tolist(), strict=True))) == 3
        # Far from one another, all is noise for it: then the two of k-means stay.
        clusters = cluster_records(noise(40, num_features=30), max_clusters=10)
        assert clusters.algorithm == "kmeans" and clusters.num_clusters == 2

    def test_noise_is_in_no_cluster(self, monkeypatch):
        table, _ = blobs((200, 100, 60, 1, 1), num_features=2, spread=0.01)
        monkeypatch.setattr(sampling._KSearch, "elbow_k", lambda self: 2)
        clusters = cluster_records(table, max_clusters=10)
        assert clusters.sizes == [200, 100, 60] and np.count_nonzero(clusters.labels == -1) == 2
        draw = draw_stratified(table, 30, clusters=clusters)
        assert draw.drawn_sizes == [10, 10, 10] and draw.to_dict()["clusters"]["in_no_cluster"] == 2

    def test_many_records_go_in_batches(self, monkeypatch):
        monkeypatch.setattr(sampling, "_MINIBATCH_FROM", 300)
        table, _ = blobs((100, 100, 100))
        clusters = cluster_records(table, max_clusters=20)
        assert (clusters.algorithm, clusters.sizes) == ("minibatch-kmeans", [100, 100, 100])

    def test_the_silhouette_is_that_of_a_part(self, monkeypatch):
        from sklearn.metrics import silhouette_score

        table = noise(200)
        points, _ = principal_components(table.values)
        whole = cluster_records(table, num_clusters=3)
        assert whole.fits[0].silhouette == pytest.approx(silhouette_score(points, whole.labels))
        monkeypatch.setattr(sampling, "_SILHOUETTE_RECORDS", 50)
        part = cluster_records(table, num_clusters=3)
        assert part.fits[0].silhouette != whole.fits[0].silhouette
        np.testing.assert_array_equal(part.labels, whole.labels)

    def test_records_that_are_alike(self):
        """Fewer different records than clusters, and a feature that is the same everywhere."""
        values = np.repeat(np.eye(4, 5, dtype=np.float32) * 3, 10, axis=0)
        table = FeatureTable(np.arange(40), values, tuple("abcde"))
        clusters = cluster_records(table)
        assert clusters.sizes == [10, 10, 10, 10] and max(fit.k for fit in clusters.fits) == 4
        with pytest.raises(EcgDataError, match="features of all 40 records are the same"):
            cluster_records(FeatureTable(np.arange(40), np.ones((40, 5), np.float32), tuple("abcde")))

    def test_refusals(self):
        with pytest.raises(EcgDataError, match="unknown scaling 'log'; known: standardised, reference"):
            cluster_records(noise(20), scaling="log")
        with pytest.raises(EcgDataError, match="at least 3"):
            cluster_records(noise(2))
        for k in (1, 20, 300):
            with pytest.raises(EcgDataError, match=f"cannot make {k} clusters of 20 records; expected 2 to 19"):
                cluster_records(noise(20), num_clusters=k)

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.preprocessing", None)
        with pytest.raises(ImportError, match=r"pip install 'ecgbyte-hf\[sampling\]'"):
            cluster_records(noise(20))


def noise(num_records, *, num_features=8, seed=5):
    values = np.random.default_rng(seed).normal(size=(num_records, num_features)).astype(np.float32)
    return FeatureTable(np.arange(num_records), values, tuple(map(str, range(num_features))))


class TestComponents:
    def test_are_standardised_and_keep_95_percent(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 10)) + 0.01 * rng.normal(size=(500, 10))
        for scaling in ("standardised", "reference"):
            points, explained = principal_components(values, scaling=scaling)
            assert points.shape[1] == len(explained) <= 3 and 0.95 <= explained.sum() <= 1.0
            assert explained[:-1].sum() < 0.95
            np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-9)
            np.testing.assert_allclose(points.std(axis=0), 1.0)
            np.testing.assert_allclose(np.corrcoef(points.T), np.eye(points.shape[1]), atol=1e-6)

    def test_units_make_no_difference_unless_as_in_the_paper(self):
        rng = np.random.default_rng(1)
        values = rng.normal(size=(300, 4))
        in_seconds, in_milliseconds = values * [1, 1, 1, 1], values * [1, 1, 1, 1000]
        one, _ = principal_components(in_seconds)
        other, _ = principal_components(in_milliseconds)
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert principal_components(in_seconds, scaling="reference")[0].shape == (300, 4)
        assert principal_components(in_milliseconds, scaling="reference")[0].shape == (300, 1)

    def test_a_constant_made_of_rounding_is_left_out(self):
        values = np.random.default_rng(2).normal(size=(100, 3)).astype(np.float32)
        values[:, 1] = np.float32(0.1)
        assert principal_components(values)[0].shape == (100, 2)


class TestElbow:
    def test_is_where_the_curve_bends_and_not_the_largest_drop(self):
        ks = list(range(2, 40))
        inertia = [1000.0 * 0.8 ** (k - 2) + (40 - k) for k in ks]
        drops = -np.diff(inertia)
        assert ks[int(drops.argmax())] == 2  # the paper's rule
        assert 8 <= elbow(ks, inertia) <= 12

    def test_unit_and_uneven_steps_make_no_difference(self):
        ks = [2, 3, 5, 9, 17, 33]
        inertia = [100.0, 60.0, 20.0, 15.0, 10.0, 5.0]
        assert elbow(ks, inertia) == elbow(ks, [1e6 * value for value in inertia]) == 5

    def test_where_there_is_none(self):
        assert elbow([7], [3.0]) == 7
        assert elbow([2, 3], [3.0, 1.0]) == 2
        assert elbow([2, 3, 4], [1.0, 1.0, 1.0]) == 2

    def test_the_grid_reaches_from_two_to_the_largest(self):
        for largest in (2, 3, 7, 50, 199, 200):
            grid = coarse_grid(largest)
            assert grid == sorted(set(grid)) and grid[0] == 2 and grid[-1] == largest
        steps = np.divide(coarse_grid(200)[1:], coarse_grid(200)[:-1])
        assert len(coarse_grid(200)) <= 22 and steps[6:].max() < 1.3

    def test_the_search_is_fine_where_it_matters(self):
        clusters = cluster_records(blobs([8] * 33, num_features=33)[0], max_clusters=200)
        assert clusters.num_clusters == 33 and 33 not in coarse_grid(200)
        assert len(clusters.fits) <= 54


class TestStratified:
    def test_equal_shares_and_then_a_fill_up(self):
        table, _ = blobs((100, 60, 40))
        draw = draw_stratified(table, 61)
        assert draw.clusters.sizes == [100, 60, 40]
        assert sum(draw.drawn_sizes) == 61 == len(set(draw.ecg_ids))
        assert all(20 <= drawn <= 21 for drawn in draw.drawn_sizes)
        assert draw.ecg_ids == tuple(sorted(draw.ecg_ids)) and set(draw.ecg_ids) <= set(table.ecg_ids.tolist())

    def test_a_small_cluster_is_drawn_whole(self):
        table, _ = blobs((200, 150, 4))
        draw = draw_stratified(table, 90)
        assert draw.drawn_sizes[2] == 4 and min(draw.drawn_sizes[:2]) >= 30 and sum(draw.drawn_sizes) == 90

    def test_all_records(self):
        table, _ = blobs((30, 20, 10))
        assert draw_stratified(table, 60).drawn_sizes == [30, 20, 10]

    def test_seeded_and_free_of_order(self):
        table = noise(150)
        clusters = cluster_records(table, num_clusters=5)
        first, again, other = (draw_stratified(table, 40, seed=seed, clusters=clusters) for seed in (0, 0, 1))
        assert first.ecg_ids == again.ecg_ids != other.ecg_ids
        # A table is in ascending order, whatever the order in which its records were asked for.
        shuffled = table.select(np.random.default_rng(0).permutation(150).tolist())
        assert draw_stratified(shuffled, 40, seed=7).ecg_ids == draw_stratified(table, 40, seed=7).ecg_ids

    def test_a_rare_kind_comes_more_often_than_by_chance(self):
        table, belongs = blobs((280, 12, 8))
        rare = set(table.ecg_ids[belongs > 0].tolist())
        stratified = draw_stratified(table, 30, seed=0)
        uniform = draw_uniform(table.ecg_ids.tolist(), 30, seed=0)
        assert len(rare & set(stratified.ecg_ids)) >= 18 > 8 > len(rare & set(uniform.ecg_ids))

    def test_records_of_the_end_are_drawn_too(self):
        table, _ = blobs((300, 300, 300))
        assert np.median(draw_stratified(table, 60).ecg_ids) > 300

    def test_fewer_clusters_than_records_to_draw(self):
        draw = draw_stratified(blobs([10] * 12)[0], 5)
        assert draw.clusters.num_clusters <= 5 and len(draw.ecg_ids) == 5 and min(draw.drawn_sizes) >= 1
        with pytest.raises(EcgDataError, match="cannot draw 5 records from each of 8 clusters"):
            draw_clusters(noise(50), 5, num_clusters=8)

    def test_refusals(self):
        table = noise(20)
        for num_records in (1, 21):
            with pytest.raises(EcgDataError, match=f"cannot draw {num_records} of 20 records; expected from 2 to 20"):
                draw_stratified(table, num_records)
        with pytest.raises(EcgDataError, match="clusters are those of other records"):
            draw_stratified(table, 5, clusters=cluster_records(noise(21), num_clusters=3))


class TestFiles:
    def test_json_has_everything_and_the_list_is_read_again(self, tmp_path):
        draw = draw_stratified(blobs((40, 30, 20))[0], 12)
        path = draw.save(tmp_path / "new", {"seed": 42}, data="abc")
        stored = json.loads(path.read_text())
        clusters = stored["clusters"]
        assert stored["ecg_ids"] == list(draw.ecg_ids) and stored["method"] == "stratified"
        assert (clusters["k"], clusters["sizes"], clusters["drawn"]) == (3, [40, 30, 20], [4, 4, 4])
        assert len(clusters["k_tried"]) == len(clusters["inertia"]) == len(clusters["silhouette"])
        assert clusters["inertia"] == sorted(clusters["inertia"], reverse=True)
        assert 0.95 <= sum(clusters["explained_variance"]) <= 1.0
        assert stored["provenance"]["data"] == "abc" and stored["provenance"]["scikit-learn"]
        assert read_record_list(path) == read_record_list(path.with_suffix(".txt")) == list(draw.ecg_ids)

    def test_a_uniform_draw_has_no_clusters(self, tmp_path):
        path = draw_uniform(range(9), 3).save(tmp_path, {})
        assert "clusters" not in json.loads(path.read_text()) and len(read_record_list(path)) == 3

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.txt", "", "names no record"),
            ("a.txt", "3\n4\n3\n", "names record 3 twice"),
            ("a.txt", "3\nfour\n", "is no list of records"),
            ("a.txt", "3.5\n", "is no list of records"),
            ("a.json", "[1, 2]", "is no list of records"),
            ("a.json", "{", "is no list of records"),
            ("a.json", '{"ecg_ids": [1, "2"]}', "not all entries are whole numbers"),
            ("a.json", '{"ecg_ids": [1, true]}', "not all entries are whole numbers"),
            ("a.json", '{"ecg_ids": 7}', "is no list of records"),
        ],
    )
    def test_a_list_that_is_none(self, name, content, message, tmp_path):
        (tmp_path / name).write_text(content)
        with pytest.raises(EcgDataError, match=message):
            read_record_list(tmp_path / name)
        with pytest.raises(EcgDataError, match="cannot read"):
            read_record_list(tmp_path / "absent.txt")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def sampled(small_prepared, tmp_path_factory):
    """What the command writes for 12 of the 36 training records, with a comparison."""
    folder = tmp_path_factory.mktemp("sample")
    command = ["sample", "--data", small_prepared.folder, "--num-records", 12, "--output", folder]
    command += ["--method", "stratified"]
    assert run(*command, "--compare", "--num-merges", 40, "--compare-seeds", 0, 5) == 0
    return folder


class TestCommand:
    def test_writes_list_features_and_figure(self, sampled, small_prepared, capsys):
        assert sorted(path.name for path in sampled.iterdir()) == [
            "comparison.json",
            "features.parquet",
            "sample.json",
            "sample.png",
            "sample.txt",
        ]
        assert (sampled / "sample.png").read_bytes().startswith(b"\x89PNG")
        stored = json.loads((sampled / "sample.json").read_text())
        table = FeatureTable.load(sampled / "features.parquet")
        clusters = sampling.draw_clusters(table, 12, seed=42)
        draw = draw_stratified(table, 12, seed=42, clusters=clusters)
        assert stored["ecg_ids"] == list(draw.ecg_ids) and stored["clusters"]["sizes"] == clusters.sizes
        assert stored["provenance"]["data"] == small_prepared.fingerprint
        assert stored["provenance"]["arguments"]["num_records"] == 12

    def test_training_records_alone_are_measured_and_drawn(self, sampled, small_prepared):
        train = set(small_prepared.train_ecg_ids())
        assert (
            set(FeatureTable.load(sampled / "features.parquet").ecg_ids.tolist())
            == train
            != set(small_prepared.ecg_ids)
        )
        assert set(read_record_list(sampled / "sample.json")) < train

    def test_says_what_it_did(self, sampled, small_prepared, tmp_path, capsys):
        command = ("sample", "--data", small_prepared.folder, "--num-records", 12, "--output", tmp_path)
        assert run(*command, "--method", "stratified") == 0
        lines = capsys.readouterr().out.splitlines()
        stored = json.loads((tmp_path / "sample.json").read_text())
        clusters = stored["clusters"]
        assert stored["ecg_ids"] == read_record_list(sampled / "sample.json")
        assert lines == [
            f"12 of 36 training records drawn, saved in {tmp_path / 'sample.json'}",
            f"  {clusters['k']} clusters by {clusters['algorithm']}: {clusters['sizes'][0]} records in the largest, "
            f"{clusters['sizes'][-1]} in the smallest",
            f"  elbow at k = {clusters['elbow_k']}, best silhouette at k = {clusters['silhouette_k']}",
            f"  figure in {tmp_path / 'sample.png'}",
        ]

    def test_uniform_needs_no_features(self, small_prepared, tmp_path, capsys):
        command = ("sample", "--data", small_prepared.folder, "--num-records", 7, "--output", tmp_path)
        assert run(*command, "--method", "uniform", "--seed", 3) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["sample.json", "sample.txt"]
        expected = draw_uniform(small_prepared.train_ecg_ids(), 7, seed=3).ecg_ids
        assert tuple(read_record_list(tmp_path / "sample.txt")) == expected

    def test_too_many(self, small_prepared, tmp_path, capsys):
        command = ("sample", "--data", small_prepared.folder, "--output", tmp_path, "--num-records", 37)
        for method in ("uniform", "stratified"):
            assert run(*command, "--method", method) == 1
            assert "ecgbyte sample: cannot draw 37 of 36 records" in capsys.readouterr().err
        assert not (tmp_path / "sample.json").exists()


class TestComparison:
    def test_runs_and_summary(self, sampled):
        report = json.loads((sampled / "comparison.json").read_text())
        runs = report["runs"]
        assert [(run["method"], run["seed"]) for run in runs] == [
            ("uniform", 0),
            ("stratified", 0),
            ("uniform", 5),
            ("stratified", 5),
        ]
        assert all(run["merges"] == 40 and run["compression"] > 1.5 for run in runs)
        for metric in ("compression", "compression_p10"):
            uniform = [run[metric] for run in runs if run["method"] == "uniform"]
            stratified = [run[metric] for run in runs if run["method"] == "stratified"]
            expected = {"uniform": uniform, "stratified": stratified, "difference": np.subtract(stratified, uniform)}
            for name, values in expected.items():
                found = report[metric][name]
                assert (found["mean"], found["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert report["held_out_records"] == 4

    def test_one_run_against_the_tokenizer_made_by_hand(self, sampled, small_prepared):
        """The same range of amplitudes for all; merges of the draw; measured on the four other records."""
        report = json.loads((sampled / "comparison.json").read_text())
        train = small_prepared.train_ecg_ids()
        calibration = percentile_calibration(((n, small_prepared.signal(n)) for n in train), seed=0)
        assert report["calibration"] == {"low": calibration.low, "high": calibration.high}
        draw = draw_uniform(train, 12, seed=5)
        tokenizer = EcgByteTokenizer.train_from_iterator(
            [small_prepared.signal(n) for n in draw.ecg_ids],
            40,
            calibration=calibration,
            sampling_rate=100,
            leads=["I", "aVF"],
        )
        others = [small_prepared.signal(n) for n in small_prepared.ecg_ids if n not in train]
        tokens = [len(tokenizer.encode_signal(signal)) for signal in others]
        assert report["runs"][2]["compression"] == sum(signal.size for signal in others) / sum(tokens)
        each = sorted(signal.size / count for signal, count in zip(others, tokens, strict=True))
        assert report["runs"][2]["compression_p10"] == pytest.approx(each[0] + 0.3 * (each[1] - each[0]))

    def test_refusals(self, sampled, small_prepared, monkeypatch):
        table = FeatureTable.load(sampled / "features.parquet")
        opened = PreparedData(small_prepared.folder)
        with pytest.raises(EcgDataError, match="two or more: one draw says nothing about the spread"):
            compare_draws(opened, table, num_records=5, seeds=(1, 1))
        strangers = FeatureTable(table.ecg_ids + 4, table.values, table.columns)
        with pytest.raises(EcgDataError, match="not in the training split"):
            compare_draws(opened, strangers, num_records=5)
        monkeypatch.setattr(opened, "ecg_ids", opened.train_ecg_ids())
        with pytest.raises(EcgDataError, match="has training records only"):
            compare_draws(opened, table, num_records=5)

    def test_table(self):
        values = {
            "uniform": {"mean": 4.5, "sd": 0.25},
            "stratified": {"mean": 4.75, "sd": 0.125},
            "difference": {"mean": 0.25, "sd": 0.1},
        }
        report = {
            "num_records": 200,
            "num_merges": 1000,
            "held_out_records": 600,
            "seeds": [0, 1, 2],
            "compression": values,
            "compression_p10": {name: {"mean": 3.0, "sd": 0.5} for name in values},
        }
        assert comparison_table(report).splitlines() == [
            "1000 merges from 200 records, measured on 600 held-out records, 3 seeds:",
            "                    samples per token        10th percentile",
            "  uniform          4.5000 (sd 0.2500)     3.0000 (sd 0.5000)",
            "  stratified       4.7500 (sd 0.1250)     3.0000 (sd 0.5000)",
            "  difference      +0.2500 (sd 0.1000)    +3.0000 (sd 0.5000)",
        ]


class TestTrainingOnADraw:
    def merges(self, folder):
        return EcgByteTokenizer.from_pretrained(folder).bpe.merges.tolist()

    def test_learns_from_these_records_alone(self, sampled, small_prepared, tmp_path):
        command = ("train-tokenizer", "--data", small_prepared.folder, "--num-merges", 40)
        for name, made in (("json", "a"), ("txt", "b")):
            assert run(*command, "--records", sampled / f"sample.{name}", "--output", tmp_path / made) == 0
        drawn = [(n, small_prepared.signal(n)) for n in read_record_list(sampled / "sample.json")]
        calibration = percentile_calibration(drawn, seed=0)
        symbols = [rust_bpe.quantize(one, calibration.low, calibration.high).reshape(-1) for _, one in drawn]
        expected = rust_bpe.train(symbols, 40, max_token_length=1024).tolist()
        assert self.merges(tmp_path / "a") == self.merges(tmp_path / "b") == expected
        reports = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("a", "b")]
        assert all((report["records_trained_on"], report["records"]) == (12, 4) for report in reports)
        hashes = {report["provenance"]["arguments"]["records"] for report in reports}
        assert len(hashes) == 1 and len(hashes.pop()) == 16

    def test_records_of_other_splits_are_refused_by_name(self, small_prepared, tmp_path, capsys):
        train = small_prepared.train_ecg_ids()
        held_out = sorted(set(small_prepared.ecg_ids) - set(train))
        (tmp_path / "ids.txt").write_text("\n".join(map(str, [*train[:3], *held_out, 777, 888])))
        command = (
            "train-tokenizer",
            "--data",
            small_prepared.folder,
            "--num-merges",
            40,
            "--output",
            tmp_path / "out",
        )
        assert run(*command, "--records", tmp_path / "ids.txt") == 1
        error = capsys.readouterr().err
        named = ", ".join(map(str, [*held_out, 777]))
        assert f"6 of 9 records are not in the training split of {small_prepared.folder}: {named} and 1 more" in error
        assert not (tmp_path / "out").exists()

    def test_a_list_and_a_number_are_too_much(self, sampled, small_prepared, tmp_path, capsys):
        command = ("train-tokenizer", "--data", small_prepared.folder, "--output", tmp_path, "--max-records", 4)
        assert run(*command, "--records", sampled / "sample.json") == 2
        assert "give --records or --max-records, not both" in capsys.readouterr().err
        with pytest.raises(EcgDataError, match="expected one of them"):
            train_tokenizer(small_prepared, tmp_path, num_merges=40, max_records=4, ecg_ids=[1])
        with pytest.raises(EcgDataError, match="empty list"):
            train_tokenizer(small_prepared, tmp_path, num_merges=40, ecg_ids=[])

    def test_a_maximum_draws_as_the_uniform_draw_does(self, small_prepared, tmp_path):
        draw = draw_uniform(small_prepared.train_ecg_ids(), 10, seed=6)
        train_tokenizer(small_prepared, tmp_path / "a", num_merges=40, max_records=10, seed=6)
        train_tokenizer(small_prepared, tmp_path / "b", num_merges=40, ecg_ids=draw.ecg_ids, seed=6)
        assert self.merges(tmp_path / "a") == self.merges(tmp_path / "b")
