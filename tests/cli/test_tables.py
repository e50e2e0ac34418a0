from mhc_plugin.cli.tables import metrics_table

METRICS = {
    'multi-label/mAP': 91.234,
    'multi-label/num_classes': 2,
    'multi-label/ap_classwise': [90.0, 92.468],
    'multi-label/positives_classwise': [3, 4],
}


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_scores_and_classes():
    text = rows(metrics_table(METRICS, ['cat', 'dog']))
    assert ['multi-label/mAP', '91.23'] in text
    assert ['multi-label/num_classes', '2'] in text
    assert ['class', 'ap', 'positives'] in text
    assert ['cat', '90.00', '3'] in text
    assert ['dog', '92.47', '4'] in text


def test_classes_without_names_are_numbered():
    assert ['1', '92.47', '4'] in rows(metrics_table(METRICS))
    assert ['1', '92.47', '4'] in rows(metrics_table(METRICS, ['too', 'many', 'names']))


def test_no_second_table_without_lists():
    assert 'class' not in metrics_table({'a': 1.0})


def test_nothing_is_cut_off():
    name = 'multi-label/' + 'a' * 90
    assert name in metrics_table({name: 1.0}).replace('\n', '')
