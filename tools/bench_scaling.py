def measure(*a):
    return {}
