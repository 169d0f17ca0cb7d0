package gossip

import (
	"errors"

	"github.com/hashicorp/memberlist"
)

// What memberlist v0.7.0 puts in front of what it sends, label.go and net.go.
const (
	labelByte     = 244 // then the label's length and the label
	streamVersion = 5   // offset of the version in an encrypted stream: behind a type and a length
	gcmVersion    = 1   // AES-GCM without padding, the only one that is sent
)

// errCipherVersion is returned for a stream in the old format.
var errCipherVersion = errors.New("encrypted in a format that no member sends")

// memberlist does not authenticate the version byte of what is encrypted. With it set
// to 0 a genuine packet, recorded by somebody without the key, decrypts all the same;
// then padding is removed that is not there, and that panics in a goroutine of
// memberlist, with the whole process (security.go, pkcs7decode). So what does not say
// 1 never gets there.

// plausible reports whether an encrypted packet is in the one format that members send.
func plausible(packet []byte) bool {
	if len(packet) > 0 && packet[0] == labelByte {
		if len(packet) < 2 || len(packet) < 2+int(packet[1]) {
			return false
		}
		packet = packet[2+int(packet[1]):]
	}
	return len(packet) > 0 && packet[0] == gcmVersion
}

// sift passes on packets, those that are plausible.
func (g *guard) sift() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case p := <-g.Transport.PacketCh():
			if !plausible(p.Buf) {
				g.count.undecipherable.Add(1)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.ctx.Done():
				return
			}
		}
	}
}

// PacketCh implements memberlist.Transport.
func (g *guard) PacketCh() <-chan *memberlist.Packet {
	if !g.encrypted {
		return g.Transport.PacketCh()
	}
	return g.packets
}

// inspect looks at what was read from an encrypted stream, where its version stands:
// behind the label, which comes with what others begin, and not with their replies.
func (s *stream) inspect(read []byte) error {
	for _, b := range read {
		switch at := s.read; {
		case at == 0:
			s.version = streamVersion
			if b == labelByte {
				s.version += 2
			}
		case at == 1 && s.version > streamVersion:
			s.version += int(b)
		case at == s.version && b != gcmVersion:
			return errCipherVersion
		}
		if s.read++; s.read > s.version {
			return nil // and never again
		}
	}
	return nil
}
