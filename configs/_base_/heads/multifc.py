# MultiFC: for every class a pool and a fully connected layer.
neck = None
head = dict(type='MultiHeadClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum'))
