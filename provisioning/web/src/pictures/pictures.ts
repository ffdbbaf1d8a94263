// The 64 pictures that people compare: own drawings in one style, two colours and an outline on a white tile. Their order
// is a released format and is that of the key agreement's `pictureNames`; a drawing is never exchanged for another thing.

import { pictureNames } from '../agreement/formulas.ts';
import type { MessageId } from '../messages/messages.ts';
import type { Drawing } from '../ui/dom.ts';
import anchor from './anchor.svg';
import apple from './apple.svg';
import backpack from './backpack.svg';
import balloon from './balloon.svg';
import banana from './banana.svg';
import basket from './basket.svg';
import bicycle from './bicycle.svg';
import book from './book.svg';
import broccoli from './broccoli.svg';
import bus from './bus.svg';
import butterfly from './butterfly.svg';
import cactus from './cactus.svg';
import camel from './camel.svg';
import carrot from './carrot.svg';
import castle from './castle.svg';
import cat from './cat.svg';
import chair from './chair.svg';
import cloud from './cloud.svg';
import compass from './compass.svg';
import crown from './crown.svg';
import dice from './dice.svg';
import drum from './drum.svg';
import duck from './duck.svg';
import elephant from './elephant.svg';
import feather from './feather.svg';
import fish from './fish.svg';
import fountain from './fountain.svg';
import frog from './frog.svg';
import giraffe from './giraffe.svg';
import glasses from './glasses.svg';
import glove from './glove.svg';
import grapes from './grapes.svg';
import guitar from './guitar.svg';
import horse from './horse.svg';
import kite from './kite.svg';
import leaf from './leaf.svg';
import lemon from './lemon.svg';
import magnet from './magnet.svg';
import moon from './moon.svg';
import mountain from './mountain.svg';
import owl from './owl.svg';
import pencil from './pencil.svg';
import penguin from './penguin.svg';
import piano from './piano.svg';
import puzzle from './puzzle.svg';
import rabbit from './rabbit.svg';
import rainbow from './rainbow.svg';
import sailboat from './sailboat.svg';
import scarf from './scarf.svg';
import scooter from './scooter.svg';
import shell from './shell.svg';
import snail from './snail.svg';
import snowflake from './snowflake.svg';
import sock from './sock.svg';
import star from './star.svg';
import sunflower from './sunflower.svg';
import teapot from './teapot.svg';
import telescope from './telescope.svg';
import tent from './tent.svg';
import tractor from './tractor.svg';
import tree from './tree.svg';
import trumpet from './trumpet.svg';
import turtle from './turtle.svg';
import umbrella from './umbrella.svg';

export interface Picture {
  readonly drawing: Drawing;
  readonly message: MessageId;
}

type Name = (typeof pictureNames)[number];

const drawings: Readonly<Record<Name, Drawing>> = {
  cat, horse, elephant, rabbit, penguin, turtle, fish, butterfly, duck, owl,
  frog, snail, camel, giraffe, tree, sunflower, cactus, leaf, cloud, rainbow,
  moon, star, snowflake, mountain, shell, feather, apple, banana, lemon, grapes,
  carrot, broccoli, bicycle, bus, sailboat, balloon, castle, tent, tractor, anchor,
  scooter, fountain, umbrella, book, pencil, guitar, drum, trumpet, piano, chair,
  backpack, sock, glove, scarf, glasses, crown, kite, puzzle, dice, teapot,
  telescope, basket, compass, magnet,
};

export const pictures: readonly Picture[] = pictureNames.map((name) => ({
  drawing: drawings[name],
  message: `picture.${name}`,
}));
