"""The names of the `maskClasses` numbers, for models that get the mask in words."""

_NAMES = """
backpack; umbrella; bag; tie; suitcase; case; bird; cat; dog; horse; sheep; cow; elephant; bear;
zebra; giraffe; animal; microwave; radiator; oven; toaster; storage tank; conveyor belt; sink;
refrigerator; washer or dryer; fan; dishwasher; toilet; bathtub; shower; tunnel; bridge; pier; tent;
building; ceiling; laptop; keyboard; mouse; remote; cell phone; TV; floor; stage; banana; apple;
sandwich; orange; broccoli; carrot; hot dog; pizza; donut; cake; fruit; food; chair; armchair;
swivel chair; stool; seat; couch; trash can; potted plant; nightstand; bed; table; pool table;
barrel; desk; ottoman; wardrobe; crib; basket; chest of drawers; bookshelf; counter; bathroom
counter; kitchen island; door; light; lamp; sconce; chandelier; mirror; whiteboard; shelf; stairs;
escalator; cabinet; fireplace; stove; arcade machine; gravel; platform; playing field; railroad;
road; snow; sidewalk; runway; terrain; book; box; clock; vase; scissors; toy; teddy bear; hair
dryer; toothbrush; painting; poster; bulletin board; bottle; cup; wine glass; knife; fork; spoon;
bowl; tray; range hood; plate; person; rider; bicyclist; motorcyclist; paper; street light; road
barrier; mailbox; CCTV camera; junction box; traffic sign; traffic light; fire hydrant; parking
meter; bench; bike rack; billboard; sky; pole; fence; railing; guard rail; mountain; rock; frisbee;
skis; snowboard; ball; kite; baseball bat; baseball glove; skateboard; surfboard; tennis racket;
net; base; sculpture; column; fountain; awning; apparel; banner; flag; blanket; curtain; shower
curtain; pillow; towel; rug; vegetation; bicycle; car; autorickshaw; motorcycle; airplane; bus;
train; truck; trailer; boat; slow wheeled object; river or lake; sea; water; swimming pool;
waterfall; wall; window; window blind
"""

MASK_CLASSES = tuple(" ".join(name.split()) for name in _NAMES.split(";"))
"""Indexed by class id, as on Google's page about editing with Imagen (imagen-api-edit)."""
