"""Rates of the sample city, read off real OpenStreetMap extracts.

Measured over zoom-16 tiles with at least five tagged entities (boundaries not counted): Baltimore
2015, Reisterstown MD 2016, Liechtenstein 2021, Harrisburg 2015, Columbus, Malta 2016, and what the
sample city came to, counted the same way (Queens 2016, 442 entities a tile, is left out):

                            Balt.  Reist. Liecht. Harr.  Colum. Malta  sample
    entities a tile, mean      60     82     58     17     18     44     45
    entities a tile, median    51     61     21     13     14     31     35
    highways a tile            26     18     11     11     13     21     10
    buildings a tile            8     50     17    1.4    0.8    6.9     20
    tiles with signals        44%    14%     2%    12%    11%     2%    10%
    tiles with a maxspeed     53%    44%    35%    33%    28%    12%    48%
    tiles with a bridge       34%    20%    19%    15%    18%     6%    14%
    ... that carries cars     22%    16%     9%    14%    15%     5%    12%
    highways with maxspeed     5%     5%    23%     7%     6%     1%     8%
    building=yes              55%    28%    83%    80%    86%    87%    66%
    tags an entity            3.5    3.5    2.0    2.4    2.9    1.8    1.8
"""

# Share of ways with a maxspeed. Real: motorway 0.7-0.8, secondary 0.1-0.9, residential 0-0.7.
MAXSPEED = {
    "motorway": 0.80, "motorway_link": 0.08, "primary": 0.28, "secondary": 0.28, "tertiary": 0.18,
    "unclassified": 0.08, "residential": 0.05, "living_street": 0.2, "service": 0.008,
}  # fmt: skip
# Share of ways with lanes. Real: motorway 0.99, primary 0.65-1, secondary 0.2-0.7.
LANES = {
    "motorway": 0.97, "motorway_link": 0.6, "primary": 0.65, "secondary": 0.4, "tertiary": 0.22,
    "unclassified": 0.1, "residential": 0.02,
}  # fmt: skip
# Share of ways with a name. Real: residential 0.93-0.99, primary 0.98-1, service 0.01-0.25.
NAME = {
    "motorway": 0.8, "primary": 0.98, "secondary": 0.99, "tertiary": 0.98, "residential": 0.94,
    "unclassified": 0.85, "living_street": 0.8, "pedestrian": 0.7, "service": 0.06, "footway": 0.05,
    "path": 0.1, "track": 0.12,
}  # fmt: skip
# Share of ways with a surface. Real: service 0.04-0.16, footway 0.33-0.57, residential 0.01-0.73.
SURFACE = {
    "primary": 0.12, "secondary": 0.15, "tertiary": 0.14, "unclassified": 0.2, "residential": 0.12,
    "service": 0.1, "footway": 0.38, "path": 0.36, "track": 0.6, "pedestrian": 0.5, "cycleway": 0.5,
}  # fmt: skip
# Speed by class in km/h, in town and in the country. Real (Liechtenstein): 50, 80, 30, 60.
SPEED_TOWN = {
    "motorway": (100, 90), "motorway_link": (60, 50), "primary": (60, 50, 70),
    "secondary": (50, 60), "tertiary": (50, 40), "unclassified": (50,), "residential": (30, 40, 50),
    "living_street": (20,), "service": (20, 15),
}  # fmt: skip
SPEED_COUNTRY = {
    "motorway": (120, 110), "motorway_link": (70, 60), "primary": (90, 80), "secondary": (80,),
    "tertiary": (80, 70), "unclassified": (70, 80), "residential": (50,), "service": (30,),
}  # fmt: skip
# One speed limit in this many is written in miles per hour.
MPH_SHARE = 0.06
# A bridge stands in the map without its tag this often; it has a layer that often.
BRIDGE_OMITTED, BRIDGE_LAYER = 0.05, 0.85
# A road over a stream is mapped as a bridge this often (else a culvert, mapped or not).
STREAM_BRIDGE = {"motorway": 0.3, "primary": 0.6, "secondary": 0.55, "tertiary": 0.45}
STREAM_BRIDGE_OTHER = 0.3
# Signals stand at a crossing of arterials by its busiest quarter; mapped as nodes this often.
SIGNALS = {
    "old_town": 0.85, "commercial": 0.85, "campus": 0.6, "residential": 0.5, "industrial": 0.45,
    "park": 0.3, "farmland": 0.03,
}  # fmt: skip
SIGNALS_MAPPED = 0.85
# Share of a cell's buildings that are mapped: whole imports, half-done, hardly begun.
BUILDINGS_MAPPED = ((0.95, 0.5, 0.05), (0.4, 0.28, 0.32))
# The centre and the campus are mapped better.
BUILDINGS_MAPPED_CENTRE = ((0.95, 0.7, 0.4), (0.4, 0.4, 0.2))
# building=yes among mapped buildings. Real: 0.28-0.86.
BUILDING_YES = 0.66
# Share of land-use areas that are mapped.
LANDUSE_MAPPED = {
    "old_town": 0.3, "commercial": 0.6, "residential": 0.5, "industrial": 0.6, "campus": 0.75,
    "park": 0.8, "farmland": 0.45,
}  # fmt: skip
