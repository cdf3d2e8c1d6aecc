"""What each quarter of the sample city holds, as shares and counts a tile."""

from typing import NamedTuple


class Slots(NamedTuple):
    """How the blocks of a quarter are filled: grid, margin, shrink, shares of uses."""

    grid: tuple[int, int]
    margin: float
    shrink: tuple[float, float]
    uses: dict[str, float]


SLOTS = {
    "old_town": Slots((2, 3), 0.1, (0.8, 0.97),
                      {"building": 0.8, "empty": 0.1, "parking": 0.02, "grass": 0.05,
                       "plaza": 0.03}),
    "commercial": Slots((3, 2), 0.1, (0.55, 0.9),
                        {"building": 0.52, "parking": 0.27, "empty": 0.15, "grass": 0.06}),
    "industrial": Slots((4, 3), 0.07, (0.45, 0.88),
                        {"building": 0.55, "parking": 0.13, "empty": 0.27, "grass": 0.05}),
    "campus": Slots((2, 2), 0.12, (0.4, 0.8),
                    {"building": 0.58, "parking": 0.1, "grass": 0.14, "pitch": 0.08, "empty": 0.1}),
    "park": Slots((3, 3), 0.06, (0.5, 1.0),
                  {"wood": 0.22, "grass": 0.2, "pitch": 0.05, "playground": 0.04, "pond": 0.04,
                   "garden": 0.05, "building": 0.03, "empty": 0.37}),
    "residential": Slots((1, 1), 0.13, (0.7, 1.0),
                         {"empty": 0.88, "school": 0.03, "green": 0.04, "playground": 0.02,
                          "flats": 0.03}),
    "farmland": Slots((2, 2), 0.015, (0.97, 1.0),
                      {"field": 0.82, "wood": 0.12, "empty": 0.06}),
}  # fmt: skip
BUILDINGS: dict[str, dict[str, float]] = {
    "old_town": {"apartments": 6, "residential": 4, "retail": 3, "house": 2, "terrace": 2,
                 "church": 1, "commercial": 1, "hotel": 0.5, "public": 0.5},
    "commercial": {"retail": 5, "commercial": 5, "office": 3, "supermarket": 1, "roof": 1,
                   "hotel": 0.5, "apartments": 1},
    "residential": {"house": 8, "residential": 4, "detached": 3, "garage": 2.5, "apartments": 1,
                    "shed": 1, "terrace": 1},
    "industrial": {"industrial": 7, "warehouse": 4, "commercial": 2, "storage_tank": 0.6,
                   "roof": 0.5, "office": 0.6},
    "campus": {"university": 6, "school": 1, "dormitory": 2, "office": 0.6, "sports_hall": 0.5},
    "park": {"roof": 1, "public": 1, "shed": 1, "kiosk": 0.5},
    "farmland": {"barn": 3, "farm_auxiliary": 3, "stable": 1, "house": 2, "greenhouse": 0.5},
}  # fmt: skip
LANDUSE: dict[str, dict[str, float]] = {
    "old_town": {"residential": 2, "retail": 1, "commercial": 1},
    "commercial": {"commercial": 4, "retail": 5},
    "residential": {"residential": 1},
    "industrial": {"industrial": 12, "commercial": 1, "brownfield": 1, "construction": 0.5},
    "campus": {"amenity=university": 5, "amenity=college": 1},
    "park": {"leisure=park": 8, "recreation_ground": 1, "leisure=nature_reserve": 0.5},
    "farmland": {"farmland": 6, "meadow": 2, "farm": 0.5},
}  # fmt: skip
# Points of interest a tile, and what they are.
POI_COUNT = {"old_town": 15.0, "commercial": 8.0, "residential": 1.3, "industrial": 1.0,
             "campus": 5.0, "park": 3.0, "farmland": 0.4}  # fmt: skip
POI: dict[str, dict[str, float]] = {
    "old_town": {"amenity=restaurant": 8, "amenity=cafe": 5, "amenity=bar": 3, "amenity=pub": 2,
                 "shop=clothes": 5, "shop=bakery": 2, "shop=jewelry": 1, "shop=hairdresser": 2,
                 "shop=gift": 1, "amenity=bench": 6, "amenity=waste_basket": 3, "amenity=bank": 2,
                 "amenity=atm": 1, "tourism=museum": 1, "tourism=hotel": 2, "tourism=artwork": 1,
                 "amenity=place_of_worship": 2, "amenity=bicycle_parking": 3, "barrier=bollard": 3,
                 "amenity=fountain": 1, "historic=memorial": 1, "amenity=pharmacy": 1},
    "commercial": {"shop=supermarket": 3, "shop=clothes": 3, "shop=car": 2, "shop=furniture": 2,
                   "shop=doityourself": 1, "amenity=fast_food": 4, "amenity=restaurant": 3,
                   "amenity=fuel": 2, "amenity=bank": 2, "amenity=atm": 1, "office=company": 2,
                   "tourism=hotel": 1, "amenity=cinema": 0.5, "amenity=bicycle_parking": 1,
                   "amenity=cafe": 1, "shop=mobile_phone": 1},
    "residential": {"amenity=bench": 3, "amenity=post_box": 2, "amenity=place_of_worship": 2,
                    "amenity=kindergarten": 1, "shop=convenience": 1.5, "shop=hairdresser": 1,
                    "amenity=recycling": 1, "barrier=gate": 2, "amenity=restaurant": 0.6,
                    "amenity=doctors": 0.5, "power=transformer": 1, "amenity=school": 0.8},
    "industrial": {"amenity=fuel": 1, "shop=car_repair": 2, "barrier=gate": 3, "office=company": 1,
                   "barrier=lift_gate": 2, "man_made=chimney": 0.6, "shop=trade": 1,
                   "amenity=restaurant": 0.4, "power=transformer": 1, "man_made=storage_tank": 1},
    "campus": {"amenity=bench": 6, "amenity=bicycle_parking": 5, "amenity=cafe": 2,
               "amenity=library": 1, "tourism=artwork": 1, "barrier=bollard": 2,
               "amenity=waste_basket": 3, "tourism=information": 1, "amenity=restaurant": 1},
    "park": {"amenity=bench": 8, "leisure=picnic_table": 2, "amenity=drinking_water": 1,
             "tourism=information": 2, "amenity=waste_basket": 3, "amenity=toilets": 1,
             "amenity=shelter": 1, "barrier=gate": 1, "tourism=artwork": 0.5},
    "farmland": {"barrier=gate": 2, "amenity=bench": 1, "man_made=water_well": 0.5,
                 "tourism=viewpoint": 0.4, "tourism=information": 0.6, "man_made=mast": 0.3},
}  # fmt: skip
# Trees a tile that stand there, and the share of cells in which some are mapped.
TREES = {"old_town": (16, 0.6), "commercial": (22, 0.3), "residential": (130, 0.08),
         "industrial": (14, 0.08), "campus": (70, 0.6), "park": (160, 0.5),
         "farmland": (12, 0.05)}  # fmt: skip
USES = {
    "parking": {"amenity": "parking"},
    "grass": {"landuse": "grass"},
    "pitch": {"leisure": "pitch"},
    "wood": {"natural": "wood"},
    "playground": {"leisure": "playground"},
    "pond": {"natural": "water"},
    "garden": {"leisure": "garden"},
    "school": {"amenity": "school"},
    "green": {"leisure": "park"},
    "field": {"landuse": "farmland"},
    "plaza": {"highway": "pedestrian", "area": "yes"},
}
# Share of areas with a barrier around them, and its kinds.
BARRIER = {
    "parking": (0.08, ("fence", "wall", "hedge")),
    "school": (0.4, ("fence",)),
    "green": (0.15, ("hedge", "fence")),
    "garden": (0.3, ("hedge", "wall", "fence")),
    "pitch": (0.2, ("fence",)),
    "field": (0.07, ("hedge", "fence", "wall")),
}
