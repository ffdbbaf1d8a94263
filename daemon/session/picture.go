package session

// isKeyFrame reports whether a decrypted frame can be decoded without those before it.
func isKeyFrame(mime string, frame []byte) bool {
	switch mime {
	case mimeVP8:
		return len(frame) > 0 && frame[0]&1 == 0 // RFC 6386 section 9.1
	case mimeH264:
		return hasNAL(frame, 5)
	}
	return false
}

// hasNAL looks for a NAL unit of the given type in an Annex B access unit (ITU-T H.264, annex B).
func hasNAL(frame []byte, want byte) bool {
	for i := 0; i+3 < len(frame); i++ {
		if frame[i] == 0 && frame[i+1] == 0 && frame[i+2] == 1 && frame[i+3]&0x1f == want {
			return true
		}
	}
	return false
}

// frameSize reads the picture size of a key frame where its header carries it plainly (VP8, RFC 6386
// section 9.1: start code, then 14 bits of width and of height).
func frameSize(mime string, frame []byte) (width, height uint32, ok bool) {
	if mime != mimeVP8 || len(frame) < 10 || frame[3] != 0x9d || frame[4] != 0x01 || frame[5] != 0x2a {
		return 0, 0, false
	}
	return uint32(frame[6]) | uint32(frame[7]&0x3f)<<8, uint32(frame[8]) | uint32(frame[9]&0x3f)<<8, true
}
