package e2ee

import "errors"

// Refusals. Every refusal of this package wraps exactly one of them; [Reason] gives its word.
var (
	// ErrNoKey: there is no key to send under, or none at the index the frame names.
	ErrNoKey = errors.New("no key")
	// ErrKeyExhausted: the key has sealed or opened [MaxFrames] frames; the next generation is due.
	ErrKeyExhausted = errors.New("key is used up")
	// ErrGeneration: the generation is not higher than those before it.
	ErrGeneration = errors.New("generation does not rise")
	// ErrOwnKey: a key of this endpoint was offered for receiving (reflection).
	ErrOwnKey = errors.New("own key offered for receiving")
	// ErrKeyReused: the secret was in use before. What was sealed under it could be played again.
	ErrKeyReused = errors.New("secret used before")
	// ErrSecret: a secret is not 32 bytes long.
	ErrSecret = errors.New("secret has the wrong length")
	// ErrCodec: the codec is none of VP8, H.264 and Opus.
	ErrCodec = errors.New("codec not supported")
	// ErrNotEncrypted: the track is announced without AES-GCM encryption.
	ErrNotEncrypted = errors.New("track is not announced as encrypted")
	// ErrUnannounced: the member may not send this kind of track.
	ErrUnannounced = errors.New("kind of track not accepted")
	// ErrTooLarge: the frame is longer than [MaxFrameSize].
	ErrTooLarge = errors.New("frame too large")
	// ErrShort: the frame is too short to be one of its kind.
	ErrShort = errors.New("frame too short")
	// ErrClearPart: what would be sent clear is not what was announced.
	ErrClearPart = errors.New("clear part of the frame refused")
	// ErrPicture: the picture's size is not an announced one.
	ErrPicture = errors.New("picture size not announced")
	// ErrParameters: H.264 parameter sets cannot be used, or changed without [Sender.Repin].
	ErrParameters = errors.New("parameter sets refused")
	// ErrTooSoon: less than [MinRepin] has passed since the last change of parameter sets.
	ErrTooSoon = errors.New("parameter sets change too often")
	// ErrNeedKeyFrame: the stream has a gap; only a key frame can continue it.
	ErrNeedKeyFrame = errors.New("key frame needed")
	// ErrInjected: the frame was made by the SFU (server-injected frame).
	ErrInjected = errors.New("server-injected frame")
	// ErrTrailer: the frame has no LiveKit encryption trailer; it is clear, or cut.
	ErrTrailer = errors.New("frame is not encrypted")
	// ErrMalformed: the frame contradicts its own format.
	ErrMalformed = errors.New("frame is malformed")
	// ErrAuthentication: the frame was not sealed under this key, or was changed.
	ErrAuthentication = errors.New("frame does not authenticate")
	// ErrReplay: the frame has been opened before, or the message is not newer than the last.
	ErrReplay = errors.New("frame repeated")
	// ErrStale: the frame is older than the window of its stream.
	ErrStale = errors.New("frame too old")
)

// reasons pairs each refusal with the label under which it is counted.
var reasons = [...]struct {
	err  error
	word string
}{
	{ErrNoKey, "no_key"},
	{ErrKeyExhausted, "key_exhausted"},
	{ErrGeneration, "generation"},
	{ErrOwnKey, "own_key"},
	{ErrKeyReused, "key_reused"},
	{ErrSecret, "secret"},
	{ErrCodec, "codec"},
	{ErrNotEncrypted, "not_encrypted"},
	{ErrUnannounced, "unannounced"},
	{ErrTooLarge, "too_large"},
	{ErrShort, "short"},
	{ErrClearPart, "clear_part"},
	{ErrPicture, "picture"},
	{ErrParameters, "parameters"},
	{ErrTooSoon, "too_soon"},
	{ErrNeedKeyFrame, "need_key_frame"},
	{ErrInjected, "injected"},
	{ErrTrailer, "clear"},
	{ErrMalformed, "malformed"},
	{ErrAuthentication, "authentication"},
	{ErrReplay, "replay"},
	{ErrStale, "stale"},
}

// Reason returns the label of a refusal for metrics: one of a fixed set of words, "" for nil, "other" for an error
// that is not of this package.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "other"
}

// Reasons returns every label that [Reason] can give for an error, so that counters can start at zero.
func Reasons() []string {
	words := make([]string, 0, len(reasons)+1)
	for _, r := range reasons {
		words = append(words, r.word)
	}
	return append(words, "other")
}
