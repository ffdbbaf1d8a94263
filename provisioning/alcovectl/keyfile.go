package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/crypto/scrypt"

	"github.com/alcove-room/alcove/provisioning/document"
)

// keyFile is an owner's key at rest: a Tink keyset, encrypted with AES-256-GCM
// under a key that scrypt (RFC 7914) makes from the passphrase. Each file has
// everything that is needed to open it, so that keys of the root role can live
// apart on media of their own.
type keyFile struct {
	Version int                `json:"version"` // 1
	Role    string             `json:"role"`
	ID      document.Hash      `json:"id"`
	Public  document.PublicKey `json:"public"`
	Created time.Time          `json:"created"`
	KDF     kdf                `json:"kdf"`
	Keyset  document.Bytes     `json:"keyset"`
}

type kdf struct {
	Name string         `json:"name"` // "scrypt"
	N    int            `json:"n"`
	R    int            `json:"r"`
	P    int            `json:"p"`
	Salt document.Bytes `json:"salt"`
}

// Work of the passphrase: N = 2^17, r = 8 needs 128 MiB and about half a second,
// the interactive setting that age uses one step above (2^18). Files with less
// work than 2^15, or with more than 1 GiB, are refused.
const (
	scryptN, scryptR, scryptP = 1 << 17, 8, 1
	scryptMinN, scryptMaxN    = 1 << 15, 1 << 20
	saltSize                  = 16
	minPassphrase             = 12
)

// lock derives sealing keys from one passphrase, each salt's once.
type lock struct {
	passphrase []byte
	derived    map[string]tink.AEAD
}

func newLock(passphrase []byte) *lock {
	return &lock{passphrase: passphrase, derived: make(map[string]tink.AEAD)}
}

func newKDF() (kdf, error) {
	salt := make([]byte, saltSize)
	_, err := rand.Read(salt)
	return kdf{Name: "scrypt", N: scryptN, R: scryptR, P: scryptP, Salt: salt}, err
}

func (l *lock) aead(k kdf) (tink.AEAD, error) {
	if k.Name != "scrypt" || k.N < scryptMinN || k.N > scryptMaxN || k.R != scryptR || k.P != scryptP || len(k.Salt) != saltSize {
		return nil, fmt.Errorf("the passphrase's parameters are not ones that this program accepts")
	}
	name := fmt.Sprint(k.N, string(k.Salt))
	if a, ok := l.derived[name]; ok {
		return a, nil
	}
	raw, err := scrypt.Key(l.passphrase, k.Salt, k.N, k.R, k.P, 32)
	if err != nil {
		return nil, err
	}
	a, err := aeadOf(raw)
	if err != nil {
		return nil, err
	}
	l.derived[name] = a
	return a, nil
}

func aeadOf(raw []byte) (tink.AEAD, error) {
	parameters, err := aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: 32, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantNoPrefix,
	})
	if err != nil {
		return nil, err
	}
	k, err := aesgcm.NewKey(secretdata.NewBytesFromData(raw, insecuresecretdataaccess.Token{}), 0, parameters)
	if err != nil {
		return nil, err
	}
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return aead.New(h)
}

// associated binds the sealed keyset to what the file says about it.
func (f *keyFile) associated() []byte {
	return []byte("alcove/ownerkey/v1/" + f.Role + "/" + f.ID.String())
}

// sealKey makes a new key of a role and its file.
func (l *lock) sealKey(role string, k kdf) (*keyFile, error) {
	private, err := document.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	a, err := l.aead(k)
	if err != nil {
		return nil, err
	}
	f := &keyFile{Version: 1, Role: role, ID: private.Public().ID(), Public: private.Public(), Created: now(), KDF: k}
	var sealed bytes.Buffer
	if err := private.Handle().WriteWithAssociatedData(keyset.NewBinaryWriter(&sealed), a, f.associated()); err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	f.Keyset = sealed.Bytes()
	return f, nil
}

// open gives the private key.
func (l *lock) open(f *keyFile) (*document.PrivateKey, error) {
	a, err := l.aead(f.KDF)
	if err != nil {
		return nil, fmt.Errorf("key %s %.16s: %w", f.Role, f.ID, err)
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(f.Keyset)), a, f.associated())
	if err != nil {
		return nil, fmt.Errorf("key %s %.16s cannot be opened: the passphrase is wrong, or the file is damaged", f.Role, f.ID)
	}
	private, err := document.PrivateKeyFromHandle(h)
	if err != nil {
		return nil, err
	}
	if private.Public().ID() != f.ID {
		return nil, fmt.Errorf("key %s %.16s: the file holds another key than it says", f.Role, f.ID)
	}
	return private, nil
}

func parseKeyFile(b []byte) (*keyFile, error) {
	var f keyFile
	if err := document.Decode(b, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 || f.Public.ID() != f.ID || f.Role == "" {
		return nil, fmt.Errorf("not an owner key of version 1, or damaged")
	}
	return &f, nil
}

func encodeFile(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
