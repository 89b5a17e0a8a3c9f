"""The words that generated names are made of.

None of them occurs in a layout or a message, except in those of brief outputs. Which words training
may see is decided word by word by `names.held_out`.
"""

from __future__ import annotations

_WORDS = """
able abrupt absent absorb accrue acid acorn acquire active actor acute adapter adjust admin admit
adopt advice agent agile airy alarm album alias align allocate alpha amber amend ample analyse
anchor ancient angle ankle annotate antique anvil apex append apple apply approve apron arbor arch
arctic arena argon arid armor arrange array arrow artist ascii aspen assemble asset assign astral
atlas atom atomic attach attempt attic audio audit aurora avatar await awning axle azure bacon
badge bagel bakery balance bald ballot bamboo banana bandit banjo banner barge barley barn barrel
basic basil basin basket bazaar beacon beaver bedrock beetle bellow bench berry bicycle billing
bind bingo biome birch biscuit bishop bison bitter blade bland blank blanket blaze bleak blend
blind bloom blossom blueprint blunt boiler bold bonnet bonus booking boost border bottle bounty
bouquet bracket braid brass brave bread breeze brick bridge brief briefcase bright brine brisk
broad broaden bronze brook broom brown browse bubble bucket buckle budget buffer bugle bulb bullet
bumper bundle bunker buoy bureau burrow button bypass cabin cable cactus caddy cafe calc calibrate
caliper calm camera campus canal canary cancel candle canoe canopy canvas canyon caption capture
caramel caravan carbon carpet carrot cartridge carve cascade cashew casino castle casual catalog
catch cavern cedar ceiling celery cellar cello cement census cereal chalk chamber channel chapel
charcoal chariot charm chart chassis cheap cheddar cheese cherry chess chestnut chilly chimney
chisel chorus chrome cider cigar cinder cinema cinnamon circle circuit cistern citadel citrus
civic clam clamp clarinet classify clay clean clever cliff climb clinic clip cloak clone clover
cluster coach coal coarse cobalt cobble cobra cocoa coconut coerce coffee cold collapse collar
collate colony combine comet commute compass compost compress compute concat concert condor
conduit cone confirm conifer console consume contour convey cope coral cork corner coroner
corridor cosmic cosmos cottage cotton coupon courier cousin covenant coyote cozy crab cradle crane
crater crawl crayon create credit cricket crimson crisp crocus crop crown crude cruel crunch
crystal cuckoo culture cupola curly curry cursor curtain curve cushion custard cyan cycle cyclone
cymbal cypress dagger dahlia daily dairy daisy damask damp dancer dandy dapper dark dawn deaf
dealer debris decade decoy deduce deep deer defer define deflate delay delegate delta denim dense
dental depot derive desert desk detect detour dewdrop diagnose dial diamond diary diesel diffuse
digest digger dim dinghy dingo dinner diploma dipper dire discard disco discount discover dispatch
distant diver divide dizzy dock dolphin domain domino donate donkey donor dorsal dough download
drag dragon drain drama drawer dredge drift drill driver drone drum dryer dual duchess duck dump
dune dust dusty dwarf dynamo eager eagle early earn earring earthy easel easy eclipse editor eel
effect elbow elder elect elegant elevator elite elixir elm ember emblem emerald emit empire enamel
encode encrypt engine enqueue enrich ensign ensure enter envoy epic epoch epoxy equator erase
ermine escape escort essay estate estimate ether evaluate evening evict evolve exact examine
exceed exchange exclude execute exhibit exile exotic expand expire explore expose extend extract
eyelet fable fabric facade facet faint fair faithful falcon famine famous fancy farmer fasten
fathom fawn feather fence fennel feral fern ferret ferry festival fetch fiber fiddle fierce fiery
figure filament filter final finch finger finish finite firm fjord flagon flame flannel flask flat
flatten fleece fleet flicker flint flip flora florist flour flower fluent fluid flush flute foam
foil fold follow fond forest forge fork formal forward fossil fountain fox fragile fragment frame
frank freckle freeze freight fresco fresh fridge frigate frost frozen frugal fruit fudge funnel
furnace fusion fuzzy gable gadget galaxy gallery gallon gamma garage garden gargoyle garlic garnet
gasket gather gazebo gazelle gecko gemstone genome gentle gerbil geyser ghost giant giddy gilded
ginger giraffe glacier glade glass glider global globe glory glove glucose glue gnome goblet
golden golem gopher gorge gorilla gospel gourd govern grain grand granite grant grape graph grasp
grass gravel gravity gray greedy green griddle grim grind grocer gross grotto group grove grow
guard guava guess guest guild guitar gull gutter gypsum habit halo hamlet hammer hammock hamster
handshake handy hangar happy harbor harden hardy harness harp harsh harvest hasty hatch hawk hazel
headset hearty heater heavy hedge helium helmet hemlock herald herb heron hickory hidden hide hill
hinge hippo hoarse hobby hockey hoist hollow holy honest honey hood hook horizon hornet hostel
hotel hound huge humble humid humor hunter hurdle husky hydrant hydrate hyena ibex icicle icon icy
ideal identify idle idol igloo ignite iguana impala imply improve incense indigo inert infer
inflate inform inherit inject inlet inner insect insight inspect intact intend invert invoice
invoke iris iron island isolate iterate ivory ivy jackal jacket jagged jaguar jasmine jasper
javelin jelly jersey jester jewel jigsaw jockey jogger join jolly journal journey jubilee juggler
juice jungle junior juniper jury justify kayak keen kernel kettle kick kidney kiln kingdom kiosk
kitchen kite kitten knit koala krill label ladder ladle lagoon lame lancer lantern laptop larder
laser lasso latch late lattice launch laundry laurel lavender lawn layer lazy leaf league lean
learn leather ledger legal legend lemon lend lenient lens lentil leopard lettuce lever library
lichen lift light likely lilac lily limb lime linear linen lion liquid listen lively lizard llama
lobby lobster locate locket locust lodge lofty logic lone loose lotus loud lounge loyal lucky
lumber lunar lupine lush lyric macaw magenta magic magnet magpie mailbox maize major mallet
mammoth manage manatee mandolin mango manor mantle manual maple marble marina marker market marlin
marmot maroon marshal mascot mason mast matrix meadow measure medal medley mellow melody melon
memoir mentor menu mercury mermaid merry mesa meteor meter migrate mild millet mimosa mineral
minify minnow minor mint mirage mirror mission misty mitten mixer moat mobile mocha modem modern
modest moist molar monarch mongoose monkey monsoon moose moral mortar mosaic mosque mosquito moss
motel moth motor mount mountain muffin mulberry mule muscle museum mushroom muskrat mussel mustard
mutate mute myrtle mystic naive napkin narwhal nation native navigate neat nebula nectar needle
negate negotiate neon nephew neptune nettle neuron newt nickel night nimble nimbus noble noisy
nomad noodle normal normalise northern notch notify novel nozzle nuclear nugget nutmeg nylon oasis
oatmeal obelisk obey oblong oboe obscure observe obtain ocean ocelot octave octopus odd offset
olden olive omega onion onyx opal opaque opera orange orbit orchard orchid oregano organ ornate
osprey ostrich otter outer outpost oval oven overlap owl oxide oxygen oyster ozone pacer pack
paddle paginate pagoda paint palace pale palette palm panda panel panther pantry papaya parade
parasol parcel parchment parlor parrot parsley parsnip partial partition passive pasta pastel
pastry patrol pause pavilion payload payment peach peanut pearl pebble peek pelican pencil pendant
penguin pension pepper perch perfume petal petrol phantom pheasant phoenix piano pickle picnic
pier pigeon pigment pilgrim pillar pillow pilot pinion pioneer pirate pistol piston pivot pixel
pizza planet plank plaster plateau platinum plaza plum plumber plush pocket poem polar police
policy polite poll pollen pond pony poplar poppy populate porch portal poster potato pottery
powder prairie prawn predict prefetch premium prepare preserve press primal prime prism private
probe produce prolong promote prompt proper prophet propose protein proton proud prune publish
pudding puffin pulley pulsar puma pumice pump pumpkin puppet pure purge puzzle pyramid quail
quaint quantise quarry quartz quasar queen query quest quick quiet quill quilt quince quiver quota
rabbit raccoon radar radial radish raffle rafter raisin rally ramp ranch ranger rapid raptor rare
ravine raw razor reach react ready realm rear rebase rebel rebuild recall receipt recipe recite
reclaim record reduce redwood reef refine reflect refresh refund regal regress regular reindeer
reindex reject relax relay relic reload remedy remote render rental repair replay replicate
reptile rescue reserve reset resin resize resort resume retain retina reverse revise revoke rewind
rhino rhubarb rhythm ribbon rice rich riddle ridge rigid ripe ripple ritual river robin robot
robust rocket rodent roster rotate rotor rough round route router royal rubber rubble ruby rudder
rugged rumor runner rural russet rustic sabre sacred saddle safari safe saffron sail salad salmon
salon saloon salute sample sandal sandy sanitise sapling sapphire sardine satchel satin saturn
sauce sauna savanna scale scallop scan scarce scarf scenic sceptre schedule schooner science
scissor scooter scorpion scout scrape screen scroll sculptor seagull seal search season secret
sector sedan seed segment select senior sensor sequence sequoia serene serpent serve sesame
session settle settler shadow shale shamrock shape shark sharp sheaf sheep sheer shelf shelter
sherbet shield shift shingle shiny ship shoal shovel shrewd shrimp shrink shrub shuffle shuttle
shy siesta sign signal silent silicon silk silver simple simplify simulate sincere single siren
sketch skillet skim skipper skunk skyline slate sledge sleek sleet sleeve slender slice slim
slipper sloop sloth slow smart smooth snail snapper snapshot snow snug sober soccer socket sofa
soft solar soldier solemn solid solstice sonar sonata sonic sonnet sorrel sort sour southern spade
spaniel sparrow sparse spatial spatula spear spectrum sphere spice spicy spider spinach spiral
spirit splash splice sponge spoon sprout spruce squash squeeze squid squirrel stack stadium stage
stall stallion stamp stark stash static statue steady steam steel steep stencil steppe stereo
stern steward stick sticky stiff still stitch store stork storm stout stove straw street stretch
strip stripe strong studio sturdy stylus sublime subscribe subtle subtract suburb subway sudden
sugar suggest suitcase sulfur summit sundial sunny sunrise sunset superb supple surfer suspend
swallow swan swap sweep sweet swift swing swirl switch sycamore symbol symphony sync syrup tablet
tackle tadpole tally talon tame tandem tangent tango tapestry tapir tariff tarot tart tavern teach
teacup teapot tear temple tempo tenant tender tennis tenor tent tepid termite terrace terse tether
thaw thick thicket thimble thin thistle thorough thrive throne throttle thunder thyme ticket tidy
tiger tight timber timer tinsel tiny titan toast tobacco toffee toggle tokenise tomato tonic topaz
torch tornado torpedo torrid tortoise totem toucan tough tower toxin trace track tractor trade
trailer tranquil transfer transform transit trapeze traverse treasure treat trellis tribe trident
trigger trim trinket trombone trophy tropic trout trowel truffle trumpet truncate trunk tulip
tundra tune tunic tunnel turbine turnip turret turtle tuxedo tweak twilight twine twist typhoon
typical ultra umbra umbrella undo unfold unicorn unify unique unlock unroll unwind upgrade uplift
upload upper uranium urban urchin urgent usher utopia vacuum vague validate valley valve vanilla
vanish vapor vast vault vector velvet vendor venison venture venus veranda verb verbal verify
vertex vessel viaduct vibrant vicar villa vine vinegar vineyard vintage viola violet violin viper
viral virtual virtue visa vision visit vista vital vitamin vivid vocal volcano volley vortex
voucher voyage vulture waffle wagon waiter wallet walnut walrus waltz wander warbler warden
wardrobe warehouse warm warrior wary wasp watch water wave weak wealthy weary weasel weather
weaver wedge weevil weigh whale wharf wheat wheel whisker whisper whistle wicked widen widget
wigwam wild willow winch window windy winter wipe wise withdraw witty wizard wolf wombat wonder
wooden wool woolly worldly worthy wrap wren wrist yacht yard yarn yeoman yield yogurt yonder young
zany zealous zebra zenith zephyr zigzag zinc zipper zircon zodiac zoom
"""
#: Parts of identifiers, files, packages and messages.
WORDS = tuple(_WORDS.split())

_FIRST_NAMES = """
ada adele agnes ahmed aiko akira alan albert alejandro alice amara amelia amir ana andre angela
anika anton ari arjun astrid ayesha beatriz benito bianca bjorn boris brenda bruno camila carlos
carmen cecilia chandra chen chiara claude cyrus dana daniel david deepa dmitri edith elena eli
elsa emeka emil emma enrique erik esther eva fatima felix fiona frida gabriel george gita goran
greta gunnar hana hans hassan heidi helen henrik hiro hugo ida igor ines ingrid irina isaac ivan
jack jamal jana javier jean jing joao johan jonas jorge jose juan judith julia kaito karen karim
karl katya keiko kenji kofi lars laura leila lena leo lila linus lisa lucas luis luna maja malik
manuel marco maria marie mark marta mateo mei mia michel miguel mika milan mina mira mohan monica
nadia nadim naomi natasha neil nina noah noor nora olaf olga oscar otto pablo paul pedro petra
pierre priya quentin rafael rahul rania ravi renata rita robert rosa ruth sabine sami samir sara
sasha sean selma sergei shira simon sofia sonia stefan sven tamara tara tariq tessa theo thomas
tomas uma ursula valentina vera victor vikram wei wendy xavier yara yasmin yuki yuri zara zoe
"""
#: Given names of authors and owners.
FIRST_NAMES = tuple(_FIRST_NAMES.split())

_LAST_NAMES = """
abbott adeyemi agarwal aguilar ahlberg albrecht almeida andersson aoki arslan baker banerjee
barros bauer becker berger bergman bhatt bianchi blom boateng bondar brandt brennan burke campos
carlsen castillo chang chavez chopra christensen cohen conti costa cruz dahl dasgupta dekker
delgado demir desai diaz dietrich dubois dvorak eklund engel eriksen esposito faber farouk
fernandez ferrari fischer flores fontaine foster franco fujita gallo garcia gomez gonzalez greco
gruber gupta haas hansen harper hayashi herrera hoffmann holm horvat hughes ibrahim iglesias ito
ivanov iyer jansen jimenez johansson joshi kapoor kato keller khalil kim klein kovacs kowalski
kraus kumar larsen laurent leclerc lehmann lindgren lopez lund maier malhotra marino martin mbeki
mehta melnik mendoza meyer molina moreau moretti mueller murphy nair nakamura navarro nguyen
nilsson novak nowak obi ochoa okafor okonkwo olsen ortega osei ozturk park patel pereira perez
petrov popov quinn raman ramirez rao reyes ricci richter rios rivera romano rossi ruiz sanchez
santos sato schmidt schneider sharma silva singh soto stone suzuki svensson tanaka tran varga
vargas vega vogel volkov wagner walsh wang weber winkler wong yamada yilmaz zhang zhou ziegler
"""
#: Family names of authors and owners.
LAST_NAMES = tuple(_LAST_NAMES.split())
