package sfu

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"

	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

// TokenLife is how long a token lets somebody join. LiveKit renews it for those who are in.
const TokenLife = 10 * time.Minute

// adminLife is the life of the hub's own tokens, one for each call.
const adminLife = 30 * time.Second

// Client speaks to a LiveKit server's room API and makes tokens for it. It implements sessions.Media.
type Client struct {
	key, secret string
	rooms       livekit.RoomService
	http        *http.Client
}

var _ sessions.Media = (*Client)(nil)

// NewClient returns a client for the server at base (http or https; ws and wss are understood).
func NewClient(base *url.URL, key, secret string) *Client {
	u := *base
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
	c := &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second},
		// The authorisation header must not follow a redirect.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the media server redirects") },
	}
	return &Client{key: key, secret: secret, rooms: livekit.NewRoomServiceProtobufClient(u.String(), c), http: c}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Token implements sessions.Media with the least that a member needs: one room, one identity, camera, microphone and
// data; nothing hidden, no recording, no administration, no change of name or metadata.
func (c *Client) Token(room, identity string) (string, error) {
	yes, no := true, false
	grant := &auth.VideoGrant{
		RoomJoin: true, Room: room,
		CanPublish: &yes, CanSubscribe: &yes, CanPublishData: &yes,
		CanUpdateOwnMetadata: &no,
	}
	grant.SetCanPublishSources([]livekit.TrackSource{livekit.TrackSource_CAMERA, livekit.TrackSource_MICROPHONE})
	token, err := auth.NewAccessToken(c.key, c.secret).SetIdentity(identity).SetVideoGrant(grant).SetValidFor(TokenLife).ToJWT()
	if err != nil {
		return "", fmt.Errorf("make LiveKit token: %w", err)
	}
	return token, nil
}

// admin authorises one call of the hub itself.
func (c *Client) admin(ctx context.Context, grant *auth.VideoGrant) (context.Context, error) {
	token, err := auth.NewAccessToken(c.key, c.secret).SetVideoGrant(grant).SetValidFor(adminLife).ToJWT()
	if err != nil {
		return nil, fmt.Errorf("make LiveKit token: %w", err)
	}
	return twirp.WithHTTPRequestHeaders(ctx, http.Header{"Authorization": {"Bearer " + token}})
}

// Ensure implements sessions.Media.
func (c *Client) Ensure(ctx context.Context, room string) error {
	ctx, err := c.admin(ctx, &auth.VideoGrant{RoomCreate: true})
	if err != nil {
		return err
	}
	_, err = c.rooms.CreateRoom(ctx, &livekit.CreateRoomRequest{
		Name: room, MaxParticipants: roomLimit, EmptyTimeout: idle, DepartureTimeout: idle,
	})
	if err != nil {
		return fmt.Errorf("make LiveKit room: %w", err)
	}
	return nil
}

// Identities implements sessions.Media. LiveKit answers for a room that it does not know with an empty list, so the
// room is looked for first.
func (c *Client) Identities(ctx context.Context, room string) ([]string, error) {
	listing, err := c.admin(ctx, &auth.VideoGrant{RoomList: true})
	if err != nil {
		return nil, err
	}
	rooms, err := c.rooms.ListRooms(listing, &livekit.ListRoomsRequest{Names: []string{room}})
	if err != nil {
		return nil, fmt.Errorf("look for LiveKit room: %w", err)
	}
	if len(rooms.Rooms) == 0 {
		return nil, sessions.ErrNoRoom
	}
	ctx, err = c.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: room})
	if err != nil {
		return nil, err
	}
	res, err := c.rooms.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room})
	if err != nil {
		return nil, fmt.Errorf("list LiveKit participants: %w", err)
	}
	var list []string
	for _, p := range res.Participants {
		list = append(list, p.Identity)
	}
	return list, nil
}

// Remove implements sessions.Media.
func (c *Client) Remove(ctx context.Context, room, identity string) error {
	ctx, err := c.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: room})
	if err != nil {
		return err
	}
	_, err = c.rooms.RemoveParticipant(ctx, &livekit.RoomParticipantIdentity{Room: room, Identity: identity})
	if err != nil && !notFound(err) {
		return fmt.Errorf("remove LiveKit participant: %w", err)
	}
	return nil
}

// Delete implements sessions.Media.
func (c *Client) Delete(ctx context.Context, room string) error {
	ctx, err := c.admin(ctx, &auth.VideoGrant{RoomCreate: true})
	if err != nil {
		return err
	}
	_, err = c.rooms.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: room})
	if err != nil && !notFound(err) {
		return fmt.Errorf("delete LiveKit room: %w", err)
	}
	return nil
}

func notFound(err error) bool {
	var e twirp.Error
	return errors.As(err, &e) && e.Code() == twirp.NotFound
}
