# Your own images, labels in OpenMMLab's multi-label JSON, as tools/prepare_dataset.py writes it:
#
#   data/own/train.json, data/own/val.json:
#       {"metainfo": {"classes": ["cat", "dog", "horse"]},
#        "data_list": [{"img_path": "a.jpg", "gt_label": [0, 1]},
#                      {"img_path": "b.jpg", "gt_label": [], "unknown_label": [2]}]}
_base_ = './own_data.py'

# The classes have to be those of the file, in the same order.
train_dataloader = dict(dataset=dict(type='JSONMultiLabelDataset', ann_file='train.json'))
val_dataloader = dict(dataset=dict(type='JSONMultiLabelDataset', ann_file='val.json'))
test_dataloader = val_dataloader
