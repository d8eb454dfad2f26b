def write_figures(run, folder=None, formats=("svg","png")):
    return []
