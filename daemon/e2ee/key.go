package e2ee

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyderivation"
	"github.com/tink-crypto/tink-go/v2/keyderivation/prfbasedkeyderivation"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// SecretSize is the length of a member's secret of one generation.
const SecretSize = 32

// secretID names a secret without being it.
type secretID [sha256.Size]byte

func identify(secret []byte) secretID {
	return secretID(hash("alcove/secret-id/v1", secret))
}

// Endpoint is this side of one session. It remembers which secrets are its own, so that none of them is ever accepted
// for receiving: whoever carries the frames could else play a member's own voice back as another's.
//
// Its methods may be called from any goroutine.
type Endpoint struct {
	mu  sync.Mutex
	own map[secretID]struct{} // guarded by mu; grows by one each generation
}

// NewEndpoint returns an endpoint that has no keys.
func NewEndpoint() *Endpoint {
	return &Endpoint{own: make(map[secretID]struct{})}
}

// SendKey derives the key for sending from an own secret of [SecretSize] random bytes. It must be called before the
// secret is sealed to anybody: from here on rings of this endpoint refuse the secret.
func (e *Endpoint) SendKey(secret []byte) (*SendKey, error) {
	key, err := deriveFrameKey(secret)
	if err != nil {
		return nil, fmt.Errorf("deriving send key: %w", err)
	}
	id := identify(secret)
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.own[id]; ok {
		return nil, fmt.Errorf("deriving send key: %w", ErrKeyReused)
	}
	e.own[id] = struct{}{}
	return &SendKey{aead: key}, nil
}

func (e *Endpoint) owns(id secretID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.own[id]
	return ok
}

// SendKey seals the frames of this endpoint for one generation. All senders of the endpoint share it, and its budget of
// [MaxFrames].
type SendKey struct {
	aead   tink.AEAD
	sealed atomic.Uint32
}

// spend takes one frame from the budget.
func (k *SendKey) spend() error {
	if k.sealed.Add(1) > MaxFrames {
		k.sealed.Store(MaxFrames) // stays at the limit: the counter must not wrap
		return fmt.Errorf("sealing frame: %w", ErrKeyExhausted)
	}
	return nil
}

// Frames returns how many frames were sealed under the key.
func (k *SendKey) Frames() int { return int(min(k.sealed.Load(), MaxFrames)) }

// ReceiveKey opens the frames of another member for one generation.
type ReceiveKey struct {
	aead tink.AEAD
	id   secretID
}

// NewReceiveKey derives the key for receiving from another member's secret of [SecretSize] bytes.
func NewReceiveKey(secret []byte) (*ReceiveKey, error) {
	key, err := deriveFrameKey(secret)
	if err != nil {
		return nil, fmt.Errorf("deriving receive key: %w", err)
	}
	return &ReceiveKey{aead: key, id: identify(secret)}, nil
}

// String keeps the key out of logs.
func (*SendKey) String() string { return "e2ee.SendKey" }

// String keeps the key out of logs.
func (*ReceiveKey) String() string { return "e2ee.ReceiveKey" }

// frameSalt and frameInfo are livekit-client's (src/e2ee/constants.ts SALT; utils.ts getAlgoOptions): the key equals what
// keyProvider.setKey(secret) gives in a browser.
var frameInfo [128]byte

const frameSalt = "LKFrameEncryptionKey"

func deriveFrameKey(secret []byte) (tink.AEAD, error) {
	return derive(secret, frameSalt, frameInfo[:], 16)
}

// derive makes an AES-GCM primitive of keySize bytes by HKDF-SHA-256 (RFC 5869) inside Tink; the key's bytes never leave it.
func derive(secret []byte, salt string, info []byte, keySize int) (tink.AEAD, error) {
	if len(secret) != SecretSize {
		return nil, fmt.Errorf("%d bytes: %w", len(secret), ErrSecret)
	}
	prfParams, err := hkdfprf.NewParameters(SecretSize, hkdfprf.SHA256, []byte(salt))
	if err != nil {
		return nil, fmt.Errorf("hkdf parameters: %w", err)
	}
	prfKey, err := hkdfprf.NewKey(secretdata.NewBytesFromData(secret, insecuresecretdataaccess.Token{}), prfParams)
	if err != nil {
		return nil, fmt.Errorf("hkdf key: %w", err)
	}
	gcm, err := aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: keySize, IVSizeInBytes: ivSize, TagSizeInBytes: tagSize, Variant: aesgcm.VariantNoPrefix,
	})
	if err != nil {
		return nil, fmt.Errorf("aes-gcm parameters: %w", err)
	}
	params, err := prfbasedkeyderivation.NewParameters(prfParams, gcm)
	if err != nil {
		return nil, fmt.Errorf("deriver parameters: %w", err)
	}
	key, err := prfbasedkeyderivation.NewKey(params, prfKey, 0)
	if err != nil {
		return nil, fmt.Errorf("deriver key: %w", err)
	}
	return deriveAEAD(key, info)
}

func deriveAEAD(key *prfbasedkeyderivation.Key, info []byte) (tink.AEAD, error) {
	manager := keyset.NewManager()
	id, err := manager.AddKey(key)
	if err != nil {
		return nil, fmt.Errorf("deriver keyset: %w", err)
	}
	if err := manager.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("deriver keyset: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("deriver keyset: %w", err)
	}
	deriver, err := keyderivation.New(handle)
	if err != nil {
		return nil, fmt.Errorf("deriver: %w", err)
	}
	derived, err := deriver.DeriveKeyset(info)
	if err != nil {
		return nil, fmt.Errorf("deriving keyset: %w", err)
	}
	entry, err := derived.Primary()
	if err != nil {
		return nil, fmt.Errorf("derived keyset: %w", err)
	}
	gcm, ok := entry.Key().(*aesgcm.Key)
	if !ok {
		return nil, fmt.Errorf("derived keyset: key is a %T", entry.Key())
	}
	// The key's own primitive, not the keyset's: that one searches by prefix and allocates for each frame.
	return aesgcm.NewAEAD(gcm)
}
