package document

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Bytes is a binary value; in JSON unpadded base64url (RFC 4648 section 5), in
// its one canonical form.
type Bytes []byte

// MarshalText writes unpadded base64url.
func (b Bytes) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

// UnmarshalText refuses padding, line breaks and non-zero trailing bits: one
// value has one spelling.
func (b *Bytes) UnmarshalText(text []byte) error {
	if strings.ContainsAny(string(text), "\r\n") {
		return fmt.Errorf("base64url: a line break")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("base64url: %w", err)
	}
	*b = raw
	return nil
}

// Hash is a SHA-256 value; in JSON 64 lower-case hexadecimal digits.
type Hash [sha256.Size]byte

// String is the hexadecimal form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero tells whether h was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes the hexadecimal form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads exactly 64 lower-case hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(h) || string(text) != strings.ToLower(string(text)) {
		return fmt.Errorf("a hash has 64 lower-case hexadecimal digits")
	}
	copy(h[:], raw)
	return nil
}

// ParseHash reads what Hash.String writes.
func ParseHash(s string) (Hash, error) {
	var h Hash
	err := h.UnmarshalText([]byte(s))
	return h, err
}

// SPKIHash is the name of a public key: SHA-256 of its SubjectPublicKeyInfo in
// DER (RFC 5280 section 4.1.2.7). Hub pins are such hashes.
func SPKIHash(spki []byte) Hash { return sha256.Sum256(spki) }

// LabelledHash is H(label, x…) = SHA-256(lp(label) ‖ lp(x)…), where lp(x) is x
// behind its length as a big-endian u32.
func LabelledHash(label string, x ...[]byte) Hash {
	h := sha256.New()
	h.Write(lp([]byte(label)))
	for _, b := range x {
		h.Write(lp(b))
	}
	return Hash(h.Sum(nil))
}

func lp(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func hmacSHA256(key, message []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(message)
	return m.Sum(nil)
}
