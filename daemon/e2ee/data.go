package e2ee

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// Messages between members (chat, reports, requests for key frames) are sealed under a key of their own:
//
//	u8 1 | u32 generation | u64 sequence | IV (12) | ciphertext | tag (16)
//
// AES-256-GCM; key = HKDF-SHA-256(sender's secret of that generation, salt "alcove/data/v1", info empty, 32 bytes);
// associated data = H("alcove/data/v1", T, D of the sender, u32 generation, u64 sequence). Integers are big-endian.
const (
	dataLabel   = "alcove/data/v1"
	dataVersion = 1
	dataHeader  = 1 + 4 + 8
	// DataOverhead is how much longer a sealed message is.
	DataOverhead = dataHeader + ivSize + tagSize
	// MaxMessage is the largest message in bytes, unsealed: with its overhead it fits LiveKit's 15 kB of a data packet.
	MaxMessage = 14 << 10
	// MaxMessages is how many messages one generation seals.
	MaxMessages = 1 << 20
)

// dataKey is the key of one sender and generation, bound to the transcript T and the sender's document hash D.
type dataKey struct {
	aead       tink.AEAD
	transcript [32]byte
	from       [32]byte
	gen        uint32
}

func newDataKey(secret []byte, transcript, from [32]byte, gen uint32) (dataKey, error) {
	aead, err := derive(secret, dataLabel, nil, 32)
	if err != nil {
		return dataKey{}, fmt.Errorf("deriving data key: %w", err)
	}
	return dataKey{aead: aead, transcript: transcript, from: from, gen: gen}, nil
}

func (k *dataKey) associated(seq uint64) []byte {
	var g [4]byte
	var s [8]byte
	binary.BigEndian.PutUint32(g[:], k.gen)
	binary.BigEndian.PutUint64(s[:], seq)
	sum := hash(dataLabel, k.transcript[:], k.from[:], g[:], s[:])
	return sum[:]
}

// DataSealer seals this endpoint's messages of one generation. Its methods may be called from any goroutine.
type DataSealer struct {
	key dataKey
	mu  sync.Mutex
	seq uint64 // guarded by mu; the last one used
}

// NewDataSealer returns the sealer for an own secret: T is the transcript, from the own document hash D.
func NewDataSealer(secret []byte, transcript, from [32]byte, gen uint32) (*DataSealer, error) {
	key, err := newDataKey(secret, transcript, from, gen)
	if err != nil {
		return nil, err
	}
	return &DataSealer{key: key}, nil
}

// Seal returns the message sealed under the next sequence number; the first is 1.
func (s *DataSealer) Seal(message []byte) ([]byte, error) {
	if len(message) > MaxMessage {
		return nil, fmt.Errorf("sealing message of %d bytes: %w", len(message), ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seq >= MaxMessages {
		return nil, fmt.Errorf("sealing message: %w", ErrKeyExhausted)
	}
	s.seq++
	sealed, err := s.key.aead.Encrypt(message, s.key.associated(s.seq))
	if err != nil {
		return nil, fmt.Errorf("sealing message: %w", err)
	}
	out := make([]byte, dataHeader, dataHeader+len(sealed))
	out[0] = dataVersion
	binary.BigEndian.PutUint32(out[1:], s.key.gen)
	binary.BigEndian.PutUint64(out[5:], s.seq)
	return append(out, sealed...), nil
}

// DataOpener opens another member's messages of one generation. Its methods may be called from any goroutine.
type DataOpener struct {
	key  dataKey
	mu   sync.Mutex
	last uint64 // guarded by mu; the highest opened
}

// NewDataOpener returns the opener for another member's secret: T is the transcript, from that member's document hash D.
func NewDataOpener(secret []byte, transcript, from [32]byte, gen uint32) (*DataOpener, error) {
	key, err := newDataKey(secret, transcript, from, gen)
	if err != nil {
		return nil, err
	}
	return &DataOpener{key: key}, nil
}

// MessageGeneration returns the generation that a sealed message names, to find its opener. It is not authenticated
// until the opener has opened the message.
func MessageGeneration(sealed []byte) (uint32, error) {
	switch {
	case len(sealed) < DataOverhead:
		return 0, fmt.Errorf("reading message of %d bytes: %w", len(sealed), ErrShort)
	case len(sealed) > DataOverhead+MaxMessage:
		return 0, fmt.Errorf("reading message of %d bytes: %w", len(sealed), ErrTooLarge)
	case sealed[0] != dataVersion:
		return 0, fmt.Errorf("reading message of version %d: %w", sealed[0], ErrMalformed)
	}
	return binary.BigEndian.Uint32(sealed[1:]), nil
}

// Open returns the message, if it is this member's, of this generation and transcript, unchanged, and newer than all
// that were opened before. Messages may be lost, never repeated or reordered.
func (o *DataOpener) Open(sealed []byte) ([]byte, error) {
	gen, err := MessageGeneration(sealed)
	if err != nil {
		return nil, err
	}
	if gen != o.key.gen {
		return nil, fmt.Errorf("opening message of generation %d: %w", gen, ErrNoKey)
	}
	seq := binary.BigEndian.Uint64(sealed[5:])
	o.mu.Lock()
	defer o.mu.Unlock()
	if seq <= o.last {
		return nil, fmt.Errorf("opening message %d after %d: %w", seq, o.last, ErrReplay)
	}
	message, err := o.key.aead.Decrypt(sealed[dataHeader:], o.key.associated(seq))
	if err != nil {
		return nil, fmt.Errorf("opening message: %w", ErrAuthentication)
	}
	o.last = seq
	return message, nil
}
