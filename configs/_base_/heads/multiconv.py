# MultiConv: for every class convolutions, a pool and a fully connected layer.
neck = None
head = dict(type='ConvMultiHeadClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum'))
