package agreement

import (
	"encoding/binary"
	"fmt"
)

// Pictures are the names of the 64 pictures, in the order that the label alcove/pictures/v1 fixes for ever. The names
// are keys of the sprite and of the messages in every language, not words for people.
var Pictures = [64]string{
	"cat", "horse", "elephant", "rabbit", "penguin", "turtle", "fish", "butterfly",
	"duck", "owl", "frog", "snail", "camel", "giraffe",
	"tree", "sunflower", "cactus", "leaf", "cloud", "rainbow", "moon", "star",
	"snowflake", "mountain", "shell", "feather",
	"apple", "banana", "lemon", "grapes", "carrot", "broccoli",
	"bicycle", "bus", "sailboat", "balloon", "castle", "tent", "tractor", "anchor",
	"scooter", "fountain",
	"umbrella", "book", "pencil", "guitar", "drum", "trumpet", "piano", "chair",
	"backpack", "sock", "glove", "scarf", "glasses", "crown", "kite", "puzzle",
	"dice", "teapot", "telescope", "basket", "compass", "magnet",
}

// pictureChoices is the number of ordered choices of four pictures without repetition.
const pictureChoices = 64 * 63 * 62 * 61

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Code is the 40-bit code of t, XXXX-XXXX.
func Code(t T) string {
	h := hash(labelCode, t[:])
	bits := binary.BigEndian.Uint64(h[:8]) >> 24
	var out [9]byte
	for i, at := 0, 0; i < 8; i, at = i+1, at+1 {
		if i == 4 {
			out[at] = '-'
			at++
		}
		out[at] = crockford[bits>>(35-5*i)&31]
	}
	return string(out[:])
}

func pictureNumber(t T) uint64 {
	h := hash(labelPictures, t[:])
	return binary.BigEndian.Uint64(h[:8]) % pictureChoices
}

// ChoosePictures are the four different pictures of t as indexes of [Pictures], in the order in which they are said.
func ChoosePictures(t T) [4]int {
	x := pictureNumber(t)
	left := make([]int, len(Pictures))
	for i := range left {
		left[i] = i
	}
	var out [4]int
	for i := range out {
		n := uint64(len(left))
		at := int(x % n)
		x /= n
		out[i] = left[at]
		left = append(left[:at], left[at+1:]...)
	}
	return out
}

// Digits are the pictures' number in eight digits, "NNNN NNNN".
func Digits(t T) string {
	x := pictureNumber(t)
	return fmt.Sprintf("%04d %04d", x/10000, x%10000)
}
