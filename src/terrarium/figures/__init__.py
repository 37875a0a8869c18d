"""What we draw: Vega-Lite charts made from flat rows, one look for all of them.

Charts are plain Vega-Lite specs (dictionaries), so that drawing a report imports neither pandas
nor Altair; ``altair.Chart.from_dict(figure.spec)`` gives an Altair chart to build on.
"""
