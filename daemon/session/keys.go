package session

import (
	"fmt"
	"sync"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/mediacap"
)

// opusLength is the size of every packet of 20 ms at a constant bit rate.
func opusLength(bps int) int { return bps / 8 / 50 }

// keys holds what frames and messages of one session are sealed and opened with, and forgets it on demand.
type keys struct {
	endpoint *e2ee.Endpoint
	d        [32]byte
	video    *e2ee.Sender
	audio    *e2ee.Sender

	mu      sync.Mutex // guards all below
	allowed bool
	gen     uint32
	current *e2ee.SendKey
	sealer  *e2ee.DataSealer
	rings   map[string]*e2ee.Ring
	openers map[openerID]*e2ee.DataOpener
	sif     []byte // the trailer of the SFU's own frames on the present connection
}

type openerID struct {
	identity string
	gen      uint32
}

func newKeys(conf Config, d agreement.D) *keys {
	size := e2ee.Size{Width: conf.Width, Height: conf.Height}
	k := &keys{
		endpoint: e2ee.NewEndpoint(), d: d, audio: e2ee.NewOpusSender(mediacap.OpusTOC, opusLength(conf.AudioBPS)),
		rings: make(map[string]*e2ee.Ring), openers: make(map[openerID]*e2ee.DataOpener),
	}
	if conf.VideoMime == mimeH264 {
		k.video = e2ee.NewH264Sender(size)
	} else {
		k.video = e2ee.NewVP8Sender(size)
	}
	return k
}

// allow opens or closes the way out. While it is closed the senders hold no key, so nothing can be sealed.
func (k *keys) allow(on bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.allowed = on
	return k.applyLocked()
}

func (k *keys) applyLocked() error {
	for _, s := range []*e2ee.Sender{k.video, k.audio} {
		if !k.allowed || k.current == nil {
			s.ClearKey()
			continue
		}
		if err := s.SetKey(k.gen, k.current); err != nil {
			k.video.ClearKey()
			k.audio.ClearKey()
			return fmt.Errorf("set send key: %w", err)
		}
	}
	return nil
}

// send switches to a new own key.
func (k *keys) send(e agreement.SendKey) error {
	key, err := k.endpoint.SendKey(e.Secret[:])
	if err != nil {
		return err
	}
	sealer, err := e2ee.NewDataSealer(e.Secret[:], e.T, k.d, e.Gen)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gen, k.current, k.sealer = e.Gen, key, sealer
	return k.applyLocked()
}

// drop forgets the own key until the next one.
func (k *keys) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked()
}

func (k *keys) dropLocked() {
	k.current, k.sealer = nil, nil
	k.video.ClearKey()
	k.audio.ClearKey()
}

// ring is the receive keys of one member; it is made with the member's first mention.
func (k *keys) ring(identity string) *e2ee.Ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ringLocked(identity)
}

func (k *keys) ringLocked(identity string) *e2ee.Ring {
	r, ok := k.rings[identity]
	if !ok {
		r = k.endpoint.NewRing(e2ee.RingConfig{Kinds: e2ee.Audio | e2ee.Video, IVs: e2ee.LiveKitIV})
		r.SetSIFTrailer(k.sif)
		k.rings[identity] = r
	}
	return r
}

// injected tells by which trailer the SFU's own frames are known, such as those that follow a mute. They never
// open; they are only counted under their own name.
func (k *keys) injected(trailer []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sif = trailer
	for _, r := range k.rings {
		r.SetSIFTrailer(trailer)
	}
}

func (k *keys) receive(e agreement.RecvKey) error {
	key, err := e2ee.NewReceiveKey(e.Secret[:])
	if err != nil {
		return err
	}
	opener, err := e2ee.NewDataOpener(e.Secret[:], e.T, e.D, e.Gen)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.openers[openerID{e.EID, e.Gen}] = opener
	return k.ringLocked(e.EID).Install(e.Gen, key)
}

func (k *keys) retire(e agreement.RetireRecv) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.openers, openerID{e.EID, e.Gen})
	if r, ok := k.rings[e.EID]; ok {
		r.Retire(e.Gen)
	}
}

// keepOnly destroys the keys of everybody who is not a member any more.
func (k *keys) keepOnly(members map[string]*member) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for identity, r := range k.rings {
		if _, ok := members[identity]; !ok {
			r.RetireAll()
			delete(k.rings, identity)
		}
	}
	for id := range k.openers {
		if _, ok := members[id.identity]; !ok {
			delete(k.openers, id)
		}
	}
}

// forget destroys everything.
func (k *keys) forget() {
	k.mu.Lock()
	k.allowed = false
	k.dropLocked()
	k.mu.Unlock()
	k.keepOnly(nil)
}

// seal seals a data message; it fails while nothing may be sent.
func (k *keys) seal(message []byte) ([]byte, error) {
	k.mu.Lock()
	sealer, allowed := k.sealer, k.allowed
	k.mu.Unlock()
	if sealer == nil || !allowed {
		return nil, fmt.Errorf("seal message: %w", e2ee.ErrNoKey)
	}
	return sealer.Seal(message)
}

// open opens a member's data message.
func (k *keys) open(identity string, sealed []byte) ([]byte, error) {
	gen, err := e2ee.MessageGeneration(sealed)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	opener := k.openers[openerID{identity, gen}]
	k.mu.Unlock()
	if opener == nil {
		return nil, fmt.Errorf("open message: %w", e2ee.ErrNoKey)
	}
	return opener.Open(sealed)
}
