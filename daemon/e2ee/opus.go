package e2ee

import "fmt"

// opusClearSize: the TOC byte (RFC 6716 section 3.1).
const opusClearSize = 1

// opusClear holds every packet to one TOC byte and one length.
type opusClear struct {
	toc    byte
	length int
}

func (o *opusClear) split(head, frame []byte) (clear, rest []byte, err error) {
	if len(frame) <= opusClearSize {
		return nil, nil, fmt.Errorf("opus packet of %d bytes: %w", len(frame), ErrShort)
	}
	if frame[0] != o.toc || len(frame) != o.length {
		return nil, nil, fmt.Errorf("opus packet: toc %#02x and %d bytes, not %#02x and %d: %w",
			frame[0], len(frame), o.toc, o.length, ErrClearPart)
	}
	return append(head, o.toc), frame[opusClearSize:], nil
}

func (*opusClear) accept() {}
func (*opusClear) reject() {}
