package agreement

import (
	"crypto/sha256"
	"encoding/binary"
)

// Labels of documents, messages and statements; several of them also label a hash. Every signed or hashed byte string
// starts with one, so none can be taken for another.
const (
	labelDoc       = "alcove/doc/v1"
	labelPropose   = "alcove/propose/v1"
	labelCommit    = "alcove/commit/v1"
	labelReveal    = "alcove/reveal/v1"
	labelKeys      = "alcove/keys/v1"
	labelReady     = "alcove/ready/v1"
	labelAlive     = "alcove/alive/v1"
	labelChallenge = "alcove/challenge/v1"
	labelEnd       = "alcove/end/v1"
	labelAdmit     = "alcove/admit/v1"
	labelRemove    = "alcove/remove/v1"
	labelCheck     = "alcove/check/v1"
	labelCompared  = "alcove/compared/v1"
	labelAgree     = "alcove/agree/v1"
)

// Labels of hashes alone.
const (
	labelDocHash      = "alcove/dochash/v1"
	labelCommitSet    = "alcove/commitset/v1"
	labelTranscript0  = "alcove/transcript0/v1"
	labelTranscript   = "alcove/transcript/v1"
	labelCode         = "alcove/code/v1"
	labelPictures     = "alcove/pictures/v1"
	labelSeal         = "alcove/seal/v1"
	labelSecret       = "alcove/secret/v1"
	labelData         = "alcove/data/v1"
	labelProofDevice  = "alcove/proof-device/v1"
	labelProofPasskey = "alcove/proof-passkey/v1"
	labelProofOIDC    = "alcove/proof-oidc/v1"
)

// appendLP appends lp(x) = u32(len x) || x.
func appendLP(b, x []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(x)))
	return append(b, x...)
}

func appendLabel(b []byte, label string) []byte { return appendLP(b, []byte(label)) }

// preimage is what H hashes: lp(label) || lp(x1) || ...
func preimage(label string, xs ...[]byte) []byte {
	b := appendLabel(nil, label)
	for _, x := range xs {
		b = appendLP(b, x)
	}
	return b
}

// hash is H(label, x...).
func hash(label string, xs ...[]byte) [32]byte { return sha256.Sum256(preimage(label, xs...)) }

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// HashDocument is D of the encoded document.
func HashDocument(doc []byte) D { return D(hash(labelDocHash, doc)) }

func proposeHash(unsigned []byte) [32]byte { return hash(labelPropose, unsigned) }

func commitHash(p [32]byte, d D, nonce [32]byte) [32]byte {
	return hash(labelCommit, p[:], d[:], nonce[:])
}

func commitSetHash(p [32]byte, commits [][32]byte) [32]byte {
	xs := [][]byte{p[:]}
	for i := range commits {
		xs = append(xs, commits[i][:])
	}
	return hash(labelCommitSet, xs...)
}

func firstTranscript(clinic [32]byte, sid [16]byte) T {
	return T(hash(labelTranscript0, clinic[:], sid[:]))
}

func transcriptHash(prev T, p, k [32]byte, nonces [][32]byte, levels []uint8) T {
	xs := [][]byte{prev[:], p[:], k[:]}
	for i := range nonces {
		xs = append(xs, nonces[i][:])
	}
	for _, l := range levels {
		xs = append(xs, []byte{l})
	}
	return T(hash(labelTranscript, xs...))
}

func sealInfo(t T, from, to D) []byte {
	h := hash(labelSeal, t[:], from[:], to[:])
	return h[:]
}

func secretHash(s Secret) [32]byte { return hash(labelSecret, s[:]) }

// DataAAD is the additional data of a sealed data message; t is the T that the sender's key was announced under.
func DataAAD(t T, from D, gen uint32, seq uint64) []byte {
	h := hash(labelData, t[:], from[:], u32(gen), u64(seq))
	return h[:]
}

// DeviceProofDigest is the digest that the room's identity key signs for a proof of kind device.
func DeviceProofDigest(d D, k [32]byte) [32]byte { return hash(labelProofDevice, d[:], k[:]) }

// PasskeyChallenge is the WebAuthn challenge of a proof of kind passkey.
func PasskeyChallenge(d D, dch [32]byte) [32]byte { return hash(labelProofPasskey, d[:], dch[:]) }

// OIDCNonce is the value whose unpadded base64url is the nonce of a proof of kind OIDC.
func OIDCNonce(d D, dch [32]byte) [32]byte { return hash(labelProofOIDC, d[:], dch[:]) }
