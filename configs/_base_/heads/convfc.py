# ConvFC: the convolutions of MultiConv once, for all classes together.
neck = None
head = dict(type='ConvClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum'))
