error: found the parameter 'K', but imm_faces.py has: profile: str, dataset: str, data_root: str, device: str, seed: int, retrain: bool, models: str
