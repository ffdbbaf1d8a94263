package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
	"google.golang.org/protobuf/proto"

	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

// party says who is at the near end of a signal connection.
type party string

const (
	theRoom party = "room" // server-sdk-go
	aPage   party = "page" // livekit-client
	// other is whoever was let in by the SFU itself; nothing is said wrong to them.
	other party = "other"
)

// sfu is a LiveKit server and the one way to it: a server in between that reads the signalling of rooms and pages, can
// change it, and leads their media over a wire of each party. To the hub, the room and the pages it is the SFU.
type sfu struct {
	*stack.LiveKit
	URL   string
	page  string // origin of the call page
	wires map[party]*wire
	// lie changes what the server says, in place; nil: nothing.
	lie atomic.Pointer[func(party, *livekit.SignalResponse)]
	// keeps refuses the hub's removals; refused counts them.
	keeps   atomic.Bool
	refused atomic.Int64
	// slow is how long LiveKit's API takes to answer the hub, in nanoseconds.
	slow atomic.Int64

	api *httputil.ReverseProxy
}

func newSFU(t *testing.T) *sfu {
	t.Helper()
	lk := must[*stack.LiveKit](t)(stack.StartLiveKit(t.Context(), bin(t)))
	t.Cleanup(lk.Stop)
	target := must[*url.URL](t)(url.Parse(lk.URL))
	s := &sfu{LiveKit: lk, wires: map[party]*wire{theRoom: newWire(), aPage: newWire(), other: newWire()}, api: httputil.NewSingleHostReverseProxy(target)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// options are those of a clinic that uses this SFU and whose room and pages reach the hub over the wires.
func (s *sfu) options(t *testing.T) stack.Options {
	t.Helper()
	ports := must[[]int](t)(stack.FreePorts("127.0.0.1", stack.PortCount))
	people := s.wires[aPage].relayTCP(t, fmt.Sprintf("127.0.0.1:%d", ports[1]))
	devices := s.wires[theRoom].relayTCP(t, fmt.Sprintf("127.0.0.1:%d", ports[2]))
	_, port, err := net.SplitHostPort(people)
	ok(t, err)
	s.page = fmt.Sprintf("http://localhost:%d", ports[0])
	return stack.Options{
		Ports: ports, PeopleURL: "http://localhost:" + port, DevicesURL: "https://" + devices, LiveKit: s.Section(s.URL),
	}
}

// ServeHTTP carries signalling, and everything else as it is.
func (s *sfu) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		s.signal(w, r)
	case strings.HasSuffix(r.URL.Path, "/RemoveParticipant") && s.keeps.Load():
		s.refused.Add(1)
		w.Header().Set("Content-Type", "application/protobuf")
		w.WriteHeader(http.StatusOK)
	default:
		time.Sleep(time.Duration(s.slow.Load()))
		s.api.ServeHTTP(w, r)
	}
}

func (s *sfu) signal(w http.ResponseWriter, r *http.Request) {
	who := aPage
	switch {
	case r.Header.Get("Origin") == "":
		who = theRoom
	case r.Header.Get("Origin") != s.page:
		who = other
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	wire := s.wires[who]
	if wire.wait(ctx) != nil {
		return
	}
	port, end, err := wire.relayUDP(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.UDPPort})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer end.Close()
	head := http.Header{}
	if a := r.Header.Get("Authorization"); a != "" {
		head.Set("Authorization", a)
	}
	far, res, err := websocket.Dial(ctx, s.LiveKit.URL+r.URL.RequestURI(), &websocket.DialOptions{HTTPHeader: head})
	if err != nil {
		status := http.StatusBadGateway
		if res != nil && res.StatusCode >= 400 {
			status = res.StatusCode
		}
		http.Error(w, err.Error(), status)
		return
	}
	defer far.CloseNow()
	near, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer near.CloseNow()
	m := &media{from: fmt.Sprintf("127.0.0.1 %d ", s.UDPPort), to: fmt.Sprintf("127.0.0.1 %d ", port)}
	go func() {
		defer cancel()
		s.copy(ctx, near, far, wire, func(raw []byte) ([]byte, error) { return m.fromClient(raw) })
	}()
	s.copy(ctx, far, near, wire, func(raw []byte) ([]byte, error) { return s.fromServer(who, m, raw) })
}

// copy carries messages over the wire until either end goes; a nil message is left out.
func (s *sfu) copy(ctx context.Context, from, to *websocket.Conn, wire *wire, change func([]byte) ([]byte, error)) {
	from.SetReadLimit(1 << 20)
	for {
		kind, raw, err := from.Read(ctx)
		if werr := wire.wait(ctx); werr != nil {
			return
		}
		if err != nil {
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				_ = to.Close(closed.Code, closed.Reason) // the other end may be gone already
			}
			return
		}
		if kind == websocket.MessageBinary {
			if raw, err = change(raw); err != nil || raw == nil {
				continue
			}
		}
		if to.Write(ctx, kind, raw) != nil {
			return
		}
	}
}

func (s *sfu) fromServer(who party, m *media, raw []byte) ([]byte, error) {
	var res livekit.SignalResponse
	if err := proto.Unmarshal(raw, &res); err != nil {
		return nil, err
	}
	m.fromServer(&res)
	if lie := s.lie.Load(); lie != nil {
		(*lie)(who, &res)
	}
	return proto.Marshal(&res)
}

// media rewrites candidates so that all media goes through the relay: the client learns of no other address than the
// relay's, and the server of none at all.
type media struct{ from, to string }

var candidateLine = regexp.MustCompile(`(?m)^a=candidate:.*\r?\n`)

func (m *media) fromServer(res *livekit.SignalResponse) {
	switch v := res.Message.(type) {
	case *livekit.SignalResponse_Answer:
		v.Answer.Sdp = strings.ReplaceAll(v.Answer.Sdp, m.from, m.to)
	case *livekit.SignalResponse_Offer:
		v.Offer.Sdp = strings.ReplaceAll(v.Offer.Sdp, m.from, m.to)
	case *livekit.SignalResponse_Trickle:
		v.Trickle.CandidateInit = strings.ReplaceAll(v.Trickle.CandidateInit, m.from, m.to)
	}
}

func (m *media) fromClient(raw []byte) ([]byte, error) {
	var req livekit.SignalRequest
	if err := proto.Unmarshal(raw, &req); err != nil {
		return nil, err
	}
	switch v := req.Message.(type) {
	case *livekit.SignalRequest_Trickle:
		return nil, nil
	case *livekit.SignalRequest_Offer:
		v.Offer.Sdp = candidateLine.ReplaceAllString(v.Offer.Sdp, "")
	case *livekit.SignalRequest_Answer:
		v.Answer.Sdp = candidateLine.ReplaceAllString(v.Answer.Sdp, "")
	default:
		return raw, nil
	}
	return proto.Marshal(&req)
}

// rooms is LiveKit's own API, with the SFU's secret.
func (s *sfu) rooms(t *testing.T, grant *auth.VideoGrant) (context.Context, livekit.RoomService) {
	t.Helper()
	token := must[string](t)(auth.NewAccessToken(s.Key, s.Secret).SetVideoGrant(grant).SetValidFor(time.Minute).ToJWT())
	ctx := must[context.Context](t)(twirp.WithHTTPRequestHeaders(t.Context(), http.Header{"Authorization": {"Bearer " + token}}))
	return ctx, livekit.NewRoomServiceProtobufClient(s.LiveKit.URL, http.DefaultClient)
}

// room is the name of the one LiveKit room.
func (s *sfu) room(t *testing.T) string {
	t.Helper()
	ctx, api := s.rooms(t, &auth.VideoGrant{RoomList: true})
	list := must[*livekit.ListRoomsResponse](t)(api.ListRooms(ctx, &livekit.ListRoomsRequest{}))
	if len(list.Rooms) != 1 {
		t.Fatalf("%d LiveKit rooms", len(list.Rooms))
	}
	return list.Rooms[0].Name
}

// lies makes the SFU change what it says; nil makes it honest again.
func (s *sfu) lies(lie func(party, *livekit.SignalResponse)) {
	if lie == nil {
		s.lie.Store(nil)
		return
	}
	s.lie.Store(&lie)
}

// participant is what the SFU knows of one participant.
func (s *sfu) participant(t *testing.T, room, identity string) *livekit.ParticipantInfo {
	t.Helper()
	ctx, api := s.rooms(t, &auth.VideoGrant{RoomAdmin: true, Room: room})
	return must[*livekit.ParticipantInfo](t)(api.GetParticipant(ctx, &livekit.RoomParticipantIdentity{Room: room, Identity: identity}))
}

// identities are those who are in the LiveKit room.
func (s *sfu) identities(t *testing.T, room string) []string {
	t.Helper()
	ctx, api := s.rooms(t, &auth.VideoGrant{RoomAdmin: true, Room: room})
	list := must[*livekit.ListParticipantsResponse](t)(api.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room}))
	var out []string
	for _, p := range list.Participants {
		out = append(out, p.Identity)
	}
	return out
}

// token is what whoever runs the SFU can make for anybody.
func (s *sfu) token(t *testing.T, room, identity string) string {
	t.Helper()
	grant := &auth.VideoGrant{RoomJoin: true, Room: room}
	return must[string](t)(auth.NewAccessToken(s.Key, s.Secret).SetIdentity(identity).SetVideoGrant(grant).SetValidFor(time.Hour).ToJWT())
}
