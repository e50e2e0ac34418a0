# MMPretrain's own head: one linear layer for all classes.
neck = dict(type='GlobalAveragePooling')
head = dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum'))
