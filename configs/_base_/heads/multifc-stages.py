# MultiFC on stages: class c of 10 is fed by stage c * 2 // 10 of the last two.
_base_ = './multifc.py'

head = dict(connection='stages', head_stages=[0] * 5 + [1] * 5)
