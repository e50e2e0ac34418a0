import pickle

import pytest
from samples_of_all_metrics import NUM_SAMPLES, make_evaluator, make_samples
from tool_process import spawn


def evaluate_half(rank, folder):
    samples = make_samples()
    evaluator = make_evaluator()
    # As MMEngine's DefaultSampler: every second one, padded from the start to equal lengths.
    evaluator.process([*samples, samples[0]][rank::2])
    result = evaluator.evaluate(NUM_SAMPLES)
    with open(f'{folder}/{rank}.pkl', 'wb') as file:
        pickle.dump(result, file)


def test_two_processes_equal_one_exactly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spawn(evaluate_half, (str(tmp_path),), 2)
    evaluator = make_evaluator()
    evaluator.process(make_samples())
    expected = evaluator.evaluate(NUM_SAMPLES)
    for rank in range(2):
        assert pickle.loads((tmp_path / f'{rank}.pkl').read_bytes()) == pytest.approx(
            expected, rel=0, abs=0, nan_ok=True
        )
