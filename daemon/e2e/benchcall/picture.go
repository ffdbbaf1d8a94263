package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
)

const (
	rivalRoom = "rival"
	publisher = "publisher"
	// settle is how long a page is left alone between being ready and the token: people wait longer.
	settle = 700 * time.Millisecond
	// warm is how long a publisher sends, and a picture plays, before it is measured.
	warm = 2 * time.Second
)

// rival is the browser that publishes with livekit-client.
type rival struct {
	k      *clinic
	secret []byte
	joined int
}

func (k *clinic) startRival(ctx context.Context, b *browser.Browser) (*rival, error) {
	rooms := lksdk.NewRoomServiceClient(k.livekit.URL, k.livekit.Key, k.livekit.Secret)
	if _, err := rooms.CreateRoom(ctx, &livekit.CreateRoomRequest{Name: rivalRoom, MaxParticipants: 10, EmptyTimeout: 3600}); err != nil {
		return nil, fmt.Errorf("make the rival's LiveKit room: %w", err)
	}
	v := &rival{k: k, secret: make([]byte, 32)}
	if _, err := rand.Read(v.secret); err != nil {
		return nil, err
	}
	token, err := v.token(publisher)
	if err != nil {
		return nil, err
	}
	p, err := b.Open(k.pages.url("rival.html", ""))
	if err != nil {
		return nil, err
	}
	wish, err := json.Marshal(map[string]any{
		"url": k.signal(), "token": token, "secret": base64.StdEncoding.EncodeToString(v.secret),
		"width": width, "height": height, "fps": fps, "videoBits": videoBits, "audioBits": audioBits,
	})
	if err != nil {
		return nil, err
	}
	if err := p.Eval("rival.publish("+string(wish)+")", nil); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Said())
	}
	return v, nil
}

func (v *rival) token(identity string) (string, error) {
	grant := &auth.VideoGrant{RoomJoin: true, Room: rivalRoom}
	return auth.NewAccessToken(v.k.livekit.Key, v.k.livekit.Secret).SetIdentity(identity).SetVideoGrant(grant).SetValidFor(10 * time.Minute).ToJWT()
}

// join opens a receiving page, hands it a token and waits for the picture.
func (v *rival) join(context.Context) (*browser.Page, times, error) {
	v.joined++
	identity := fmt.Sprintf("viewer-%d", v.joined)
	token, err := v.token(identity)
	if err != nil {
		return nil, times{}, err
	}
	p, err := v.k.viewers.Open(v.k.pages.url("receiver.html", ""), v.k.probe)
	if err != nil {
		return nil, times{}, err
	}
	if err := p.Await(10*time.Second, "window.bench"); err != nil {
		return p, times{}, err
	}
	time.Sleep(settle)
	admission, err := json.Marshal(map[string]string{"url": v.k.signal(), "token": token, "identity": identity})
	if err != nil {
		return p, times{}, err
	}
	secret := base64.RawURLEncoding.EncodeToString(v.secret)
	if err := p.Eval(fmt.Sprintf("void bench.watch(%s, %q, %q)", admission, publisher, secret), nil); err != nil {
		return p, times{}, err
	}
	t, err := picture(p)
	return p, t, err
}

// join lets one more person into the running session and waits for the picture.
func (k *clinic) join(ctx context.Context) (*browser.Page, times, error) {
	p, err := k.knock(ctx, k.viewers, viewer)
	if err != nil {
		return p, times{}, err
	}
	time.Sleep(settle)
	if _, err := k.Press(ctx, "admit", viewer); err != nil {
		return p, times{}, err
	}
	t, err := picture(p)
	return p, t, err
}

// side is one of the two that are compared.
type side struct {
	join func(context.Context) (*browser.Page, times, error)
	left func(context.Context) error // waits until a page that left is forgotten
}

// half is what one side shows in one pair.
type half struct{ first, agreed, subscribed, delay []float64 }

func (s side) measure(ctx context.Context, c config) (half, error) {
	var h half
	for i := range c.joins {
		p, t, err := s.join(ctx)
		if err != nil {
			return h, err
		}
		h.first = append(h.first, t.First-t.Token)
		h.subscribed = append(h.subscribed, t.Subscribed-t.Token)
		h.agreed = append(h.agreed, t.Agreed-t.Token) // of the rival's nothing: it has no round
		if i == c.joins-1 {
			time.Sleep(warm)
			if h.delay, err = delays(p, c.watch); err != nil {
				return h, err
			}
		}
		goodbye(p)
		if err := s.left(ctx); err != nil {
			return h, err
		}
	}
	return h, nil
}

// measurePicture measures the time to the first picture and from capture to render.
func measurePicture(ctx context.Context, c config, r *report) error {
	k, err := newClinic(ctx, c, nil)
	if err != nil {
		return err
	}
	defer k.Close()
	room, other, end, err := k.bothSides(ctx)
	if err != nil {
		return err
	}
	defer end()
	var first, delay compared
	var agreed, subscribed, rivalSubscribed []float64
	for pair := range c.pairs {
		var got [3]half
		for i := range got {
			which := (i + pair) % len(got)
			s := other
			if which == 0 {
				s = room
			}
			if got[which], err = s.measure(ctx, c); err != nil {
				return fmt.Errorf("%w\n%s", err, k.Logs())
			}
		}
		first.take(got[0].first, got[1].first, got[2].first)
		agreed = append(agreed, got[0].agreed...)
		subscribed = append(subscribed, got[0].subscribed...)
		rivalSubscribed = append(append(rivalSubscribed, got[1].subscribed...), got[2].subscribed...)
		delay.take(got[0].delay, got[1].delay, got[2].delay)
	}
	first.report(r, "first_picture_vs_livekit_client", 1.1, 0.9, 1.1, 100)
	r.add(figure{name: "token_to_agreed_keys", unit: "ms", value: median(agreed), goal: none, stretch: none, spread: none, n: len(agreed),
		comparison: fmt.Sprintf("token to the first track: room %.1f ms, rival %.1f ms; from there to the picture: room %.1f ms, rival %.1f ms",
			median(subscribed), median(rivalSubscribed), median(minus(pooled(first.ours), subscribed)),
			median(minus(pooled(first.rivalInOrder()), rivalSubscribed)))})
	r.varied("token to agreed keys, ms: %s", histogram(agreed, 50))
	delay.report(r, "capture_to_render_vs_livekit_client", 1.1, 0.8, none, 20)
	return nil
}

// rivalInOrder is what the rival showed, in the order in which it was taken.
func (c *compared) rivalInOrder() (out [][]float64) {
	for i := range c.rival {
		out = append(out, c.rival[i], c.again[i])
	}
	return out
}

// minus subtracts one by one.
func minus(a, b []float64) []float64 {
	out := slices.Clone(a)
	for i := range out {
		out[i] -= b[i]
	}
	return out
}

func (c *compared) take(ours, rival, again []float64) {
	c.ours, c.rival, c.again = append(c.ours, ours), append(c.rival, rival), append(c.again, again)
}

// bothSides starts a session that somebody keeps open, so that the room is sending, and the rival, which sends too.
func (k *clinic) bothSides(ctx context.Context) (room, other side, end func(), err error) {
	publishers, err := browser.Start(ctx, browser.Options{})
	if err != nil {
		return room, other, nil, err
	}
	defer func() {
		if err != nil {
			publishers.Close()
		}
	}()
	if err = k.newSession(ctx, "therapist:"+keeper, "guest:"+viewer); err != nil {
		return room, other, nil, err
	}
	held, err := k.knock(ctx, publishers, keeper)
	if err != nil {
		return room, other, nil, err
	}
	for _, press := range [][]string{{"admit", keeper}, {"start", "--when-admitted"}} {
		if _, err = k.Press(ctx, press...); err != nil {
			return room, other, nil, err
		}
	}
	if _, err = picture(held); err != nil {
		return room, other, nil, err
	}
	v, err := k.startRival(ctx, publishers)
	if err != nil {
		return room, other, nil, err
	}
	time.Sleep(warm)
	room = side{join: k.join, left: func(ctx context.Context) error { return k.here(ctx, 1) }}
	other = side{join: v.join, left: func(context.Context) error { return nil }}
	return room, other, publishers.Close, nil
}
