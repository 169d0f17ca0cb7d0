package cluster

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// message is what members send each other. One of its parts is set; a newer release
// may send others, which are dropped.
type message struct {
	Entries *entriesMessage `json:"entries,omitempty"`
	Report  *trust.Sealed   `json:"report,omitempty"` // a Report
	Beat    *trust.Sealed   `json:"beat,omitempty"`   // a sign of life
	Summary *summary        `json:"summary,omitempty"`
	Call    *trust.Sealed   `json:"call,omitempty"`  // a call for something else than entries
	Reply   *trust.Sealed   `json:"reply,omitempty"` // to a call or to entries
}

// entriesMessage carries register entries, each with its own seal. Who sends it
// needs no proof.
type entriesMessage struct {
	From         string         `json:"from"`
	ID           uint64         `json:"id,omitempty"` // to be acknowledged, unless 0
	Certificates [][]byte       `json:"certificates"` // DER
	Entries      []entryMessage `json:"entries"`
}

type entryMessage struct {
	Payload []byte `json:"payload"`
	Seal    []byte `json:"seal"` // fingerprint and signature
}

// maxEntries bounds the entries of one message; those of one register always fit.
const maxEntries = 128

// newEntries is the message that carries entries.
func (r *Registers) newEntries(from string, id uint64, entries []register.Entry) (*entriesMessage, error) {
	m := &entriesMessage{From: from, ID: id}
	seen := make(map[[sha256.Size]byte]bool)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		fingerprint, _, err := splitSeal(e.Seal())
		if err != nil {
			return nil, err
		}
		if !seen[fingerprint] {
			seen[fingerprint] = true
			m.Certificates = append(m.Certificates, r.certificates[fingerprint])
		}
		m.Entries = append(m.Entries, entryMessage{e.Payload(), e.Seal()})
	}
	return m, nil
}

// decode understands the entries of a message. One that cannot be understood, which
// may be of a newer release, does not keep the others out.
func (m *entriesMessage) decode() (entries []register.Entry, certificates map[[sha256.Size]byte][]byte, err error) {
	if len(m.Entries) == 0 || len(m.Entries) > maxEntries || len(m.Certificates) > maxEntries {
		return nil, nil, fmt.Errorf("%d entries with %d certificates: 1 to %d", len(m.Entries), len(m.Certificates), maxEntries)
	}
	certificates = make(map[[sha256.Size]byte][]byte)
	for _, der := range m.Certificates {
		certificates[sha256.Sum256(der)] = der
	}
	for _, em := range m.Entries {
		fingerprint, _, e := splitSeal(em.Seal)
		if e == nil && certificates[fingerprint] == nil {
			e = errors.New("the certificate of an entry is missing")
		}
		var entry register.Entry
		if e == nil {
			entry, e = register.Decode(em.Payload, em.Seal)
		}
		if e != nil {
			err = e
			continue
		}
		entries = append(entries, entry)
	}
	return entries, certificates, err
}

// meta is what a member is known by before it has said anything. It is no proof.
type meta struct {
	Role Role `json:"role"`
}

func encodeMeta(r Role) []byte {
	data, _ := json.Marshal(meta{r})
	return data
}

func decodeMeta(data []byte) Role {
	var m meta
	if json.Unmarshal(data, &m) != nil {
		return ""
	}
	return m.Role
}
