from .per_head_bce import PerHeadBCELoss

__all__ = ['PerHeadBCELoss']
