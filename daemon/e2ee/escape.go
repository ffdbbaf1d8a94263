package e2ee

import (
	"bytes"
	"fmt"
)

// Emulation prevention (ITU-T H.264 section 7.4.1; livekit-client src/e2ee/utils.ts writeRbsp, parseRbsp): within a NAL
// unit, a byte of 0 to 3 after two zero bytes gets a 3 in front of it. Two zeros side by side are rare in ciphertext, so
// both directions look for them with [bytes.Index], which uses vector instructions, and copy what lies between whole.

var twoZeros = []byte{0, 0}

// appendEscaped appends src escaped to dst. run is the number of zeros that dst's escaped part ends with, before and
// after, so that a NAL unit can be given in pieces.
func appendEscaped(dst, src []byte, run int) ([]byte, int) {
	for len(src) > 0 {
		if run == 0 {
			i := bytes.Index(src, twoZeros)
			if i < 0 {
				if src[len(src)-1] == 0 {
					run = 1
				}
				return append(dst, src...), run
			}
			dst, src, run = append(dst, src[:i+2]...), src[i+2:], 2
			continue
		}
		b := src[0]
		if run >= 2 && b <= 3 {
			dst, run = append(dst, 3), 0
		}
		if b == 0 {
			run++
		} else {
			run = 0
		}
		dst, src = append(dst, b), src[1:]
	}
	return dst, run
}

// appendUnescaped appends src with its escapes undone to dst. It takes exactly what appendEscaped writes: a missing or a
// needless escape is [ErrMalformed], so that nobody can change a frame and have it open.
func appendUnescaped(dst, src []byte) ([]byte, error) {
	for {
		i := bytes.Index(src, twoZeros)
		if i < 0 || i+2 == len(src) {
			return append(dst, src...), nil
		}
		switch b := src[i+2]; {
		case b > 3:
			dst, src = append(dst, src[:i+3]...), src[i+3:]
		case b == 3 && i+3 < len(src) && src[i+3] <= 3:
			dst, src = append(dst, src[:i+2]...), src[i+3:]
		default:
			return nil, fmt.Errorf("emulation prevention: %w", ErrMalformed)
		}
	}
}
