package session

import "github.com/pion/webrtc/v4"

const (
	mimeVP8  = webrtc.MimeTypeVP8
	mimeH264 = webrtc.MimeTypeH264
	mimeOpus = webrtc.MimeTypeOpus
)
