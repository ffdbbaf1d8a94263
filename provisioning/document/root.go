package document

import (
	"fmt"
	"time"
)

// The roles that every owner root names. A reader ignores further roles: they
// give nothing to a program that does not know them.
const (
	RoleRoot   = "root"
	RoleRoster = "roster"
	RolePeople = "people"
	RoleConfig = "config"
)

// OwnerRoot is the root of a clinic's authority.
type OwnerRoot struct {
	Version      uint32          `json:"version"`        // 1, 2, 3…
	Owner        Hash            `json:"owner,omitzero"` // absent in version 1, whose hash it is
	Demo         bool            `json:"demo"`           // a demonstration: real rooms refuse it
	Clinic       string          `json:"clinic"`         // name, for people
	Roles        map[string]Role `json:"roles"`
	HubPins      []Hash          `json:"hub_pins"`      // SPKI hashes of the hub's key: current, next
	RecoveryKeys []Bytes         `json:"recovery_keys"` // HPKE X-Wing public keys, 1216 bytes each
	Issued       time.Time       `json:"issued"`
	Expires      time.Time       `json:"expires"`
}

// Role is the keys that may sign one type of document, and how many must.
type Role struct {
	Threshold int         `json:"threshold"`
	Keys      []PublicKey `json:"keys"`
}

func (r Role) key(id Hash) (PublicKey, bool) {
	for _, k := range r.Keys {
		if k.ID() == id {
			return k, true
		}
	}
	return nil, false
}

// Type is TypeOwnerRoot.
func (*OwnerRoot) Type() Type { return TypeOwnerRoot }

// Order is (version, 1): an owner root has no serial beside its version.
func (r *OwnerRoot) Order() Order { return Order{Root: r.Version, Serial: 1} }

// Bounds of an owner root.
const (
	maxRoleKeys    = 8
	maxHubPins     = 4
	xwingPublicKey = 1216 // draft-connolly-cfrg-xwing-kem, section 5.1
)

// Validate checks everything that the document shows by itself.
func (r *OwnerRoot) Validate() error {
	switch {
	case r.Version == 0:
		return invalid("version starts at 1")
	case (r.Version == 1) != r.Owner.IsZero():
		return invalid("owner is the first root's hash, and absent in the first root")
	case !isText(r.Clinic, 1, 80):
		return invalid("clinic is a name of 1 to 80 characters")
	case r.HubPins == nil || len(r.HubPins) > maxHubPins:
		return invalid("hub_pins is a list of at most %d hashes", maxHubPins)
	case r.RecoveryKeys == nil || len(r.RecoveryKeys) > maxRoleKeys:
		return invalid("recovery_keys is a list of at most %d keys", maxRoleKeys)
	}
	for _, k := range r.RecoveryKeys {
		if len(k) != xwingPublicKey {
			return invalid("a recovery key has %d bytes, not %d", xwingPublicKey, len(k))
		}
	}
	if err := r.validateRoles(); err != nil {
		return err
	}
	return validTimes(r.Issued, r.Expires)
}

func (r *OwnerRoot) validateRoles() error {
	for _, name := range []string{RoleRoot, RoleRoster, RolePeople, RoleConfig} {
		if _, ok := r.Roles[name]; !ok {
			return invalid("role %q is missing", name)
		}
	}
	used := make(map[Hash]string)
	for name, role := range r.Roles {
		if !isName(name) || len(role.Keys) > maxRoleKeys {
			return invalid("role %.40q: a name in lower case and at most %d keys are expected", name, maxRoleKeys)
		}
		if role.Threshold < 1 || role.Threshold > len(role.Keys) {
			return invalid("role %s: threshold %d of %d keys", name, role.Threshold, len(role.Keys))
		}
		for _, k := range role.Keys {
			// One key, one place: a key that stood in two roles would make the
			// weaker role as strong as the stronger, and twice in one role it
			// would fill a threshold by itself.
			if other, ok := used[k.ID()]; ok {
				return fmt.Errorf("%w: %w: in role %s and in role %s", ErrInvalid, ErrDuplicateKey, other, name)
			}
			used[k.ID()] = name
			if len(k) != KeySize {
				return invalid("role %s: a key has %d bytes, not %d", name, KeySize, len(k))
			}
		}
	}
	return nil
}

// Trust is a verified owner root together with the clinic that it belongs to.
// Only VerifyOwnerRoot and Next make one.
type Trust struct {
	clinic  Hash
	root    OwnerRoot
	payload Hash
}

// Clinic is SHA-256 of the first owner root's payload: the clinic's name.
func (t *Trust) Clinic() Hash { return t.clinic }

// Root is the verified owner root; read-only.
func (t *Trust) Root() *OwnerRoot { return &t.root }

// RootHash is SHA-256 of the verified owner root's payload.
func (t *Trust) RootHash() Hash { return t.payload }

// VerifyOwnerRoot follows a chain of owner roots from the first, whose payload's
// hash must be clinic, to the last, which must not have expired. The caller's
// knowledge of clinic is the anchor: it comes with a claim, from configuration
// or from the clinic's people, never from the hub.
func VerifyOwnerRoot(clinic Hash, chain []*Envelope, now time.Time) (*Trust, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("owner root: %w: there is none", ErrBroken)
	}
	if chain[0] == nil || chain[0].PayloadHash() != clinic {
		return nil, fmt.Errorf("owner root: %w: the first root is not the one that names this clinic", ErrOtherClinic)
	}
	t := &Trust{clinic: clinic}
	for _, e := range chain {
		next, err := t.follow(e)
		if err != nil {
			return nil, err
		}
		t = next
	}
	if err := timely(t.root.Issued, t.root.Expires, now); err != nil {
		return nil, fmt.Errorf("owner root %d: %w", t.root.Version, err)
	}
	return t, nil
}

// Next verifies the successor of t. The same root again is accepted and gives t.
func (t *Trust) Next(e *Envelope, now time.Time) (*Trust, error) {
	if e.PayloadType == TypeOwnerRoot.PayloadType() && e.PayloadHash() == t.payload {
		return t, nil
	}
	next, err := t.follow(e)
	if err != nil {
		return nil, err
	}
	if err := timely(next.root.Issued, next.root.Expires, now); err != nil {
		return nil, fmt.Errorf("owner root %d: %w", next.root.Version, err)
	}
	return next, nil
}

// follow takes one step. Dates are not judged: an old link of a chain may have
// expired long ago.
func (t *Trust) follow(e *Envelope) (*Trust, error) {
	if e == nil || e.PayloadType != TypeOwnerRoot.PayloadType() {
		return nil, fmt.Errorf("owner root: %w", ErrPayloadType)
	}
	// The keys of n+1 stand in the bytes that they sign, so these are parsed first.
	var r OwnerRoot
	if err := decodeComplete(e.Payload, &r); err != nil {
		return nil, fmt.Errorf("owner root: %w: %w", ErrInvalid, err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("owner root: %w", err)
	}
	if err := t.succeeds(&r); err != nil {
		return nil, fmt.Errorf("owner root %d: %w", r.Version, err)
	}
	if err := t.checkRoot(e, &r); err != nil {
		return nil, fmt.Errorf("owner root %d: %w", r.Version, err)
	}
	return &Trust{clinic: t.clinic, root: r, payload: e.PayloadHash()}, nil
}

func (t *Trust) succeeds(r *OwnerRoot) error {
	switch {
	case r.Version > 1 && r.Owner != t.clinic:
		return fmt.Errorf("%w: %s", ErrOtherClinic, r.Owner)
	case r.Version < t.root.Version:
		return fmt.Errorf("%w: version %d", ErrReplay, t.root.Version)
	case r.Version == t.root.Version:
		return ErrConflict
	case r.Version != t.root.Version+1:
		return fmt.Errorf("%w: version %d comes after %d", ErrBroken, t.root.Version+1, t.root.Version)
	case t.root.Version > 0 && r.Demo != t.root.Demo:
		return fmt.Errorf("%w: a demonstration cannot become a clinic, nor a clinic a demonstration", ErrInvalid)
	}
	return nil
}

// checkRoot demands the root threshold of the old root and that of the new.
func (t *Trust) checkRoot(e *Envelope, r *OwnerRoot) error {
	roots := []*OwnerRoot{r}
	if t.root.Version > 0 {
		roots = append(roots, &t.root)
	}
	if err := e.checkEach(func(id Hash) (PublicKey, error) { return find(id, RoleRoot, roots...) }); err != nil {
		return err
	}
	for _, by := range roots {
		role := by.Roles[RoleRoot]
		if n := e.countFor(role); n < role.Threshold {
			return fmt.Errorf("%w: %d of the %d that root %d demands", ErrThreshold, n, role.Threshold, by.Version)
		}
	}
	return nil
}

// check demands the threshold of a role of this root.
func (t *Trust) check(e *Envelope, role string) error {
	if err := e.checkEach(func(id Hash) (PublicKey, error) { return find(id, role, &t.root) }); err != nil {
		return err
	}
	r := t.root.Roles[role]
	if n := e.countFor(r); n < r.Threshold || n == 0 {
		return fmt.Errorf("%w: %d of %d", ErrThreshold, n, r.Threshold)
	}
	return nil
}

func find(id Hash, role string, roots ...*OwnerRoot) (PublicKey, error) {
	for _, r := range roots {
		if k, ok := r.Roles[role].key(id); ok {
			return k, nil
		}
	}
	for _, r := range roots {
		for other, keys := range r.Roles {
			if _, ok := keys.key(id); ok {
				return nil, fmt.Errorf("%w: key %.16s has the role %s", ErrWrongRole, id, other)
			}
		}
	}
	return nil, fmt.Errorf("%w: key %.16s", ErrUnknownKey, id)
}
