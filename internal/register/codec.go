package register

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// fileFormat is the version of the encoding. A newer release that can be read by
// this one keeps the number.
const fileFormat = 1

type stateJSON struct {
	Format  int             `json:"format"`
	SHA256  string          `json:"sha256"` // of entries, as they stand
	Entries json.RawMessage `json:"entries"`
}

type entryJSON struct {
	Payload []byte `json:"payload"`
	Seal    []byte `json:"seal,omitempty"`
}

// MarshalBinary encodes the state for a file or a peer. Equal states, seals and
// all, have equal encodings.
func (s State) MarshalBinary() ([]byte, error) {
	list := []entryJSON{}
	for e := range s.All() {
		list = append(list, entryJSON{e.payload, e.seal})
	}
	entries, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(entries)
	return json.Marshal(stateJSON{fileFormat, hex.EncodeToString(sum[:]), entries})
}

// DecodeState reads what MarshalBinary wrote, whole or not at all: a byte that was
// changed is an error. It does not look at seals.
func DecodeState(data []byte) ([]Entry, error) {
	var in stateJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("registers: %w", err)
	}
	if in.Format != fileFormat {
		return nil, fmt.Errorf("registers: format %d: this release knows format %d", in.Format, fileFormat)
	}
	if sum := sha256.Sum256(in.Entries); hex.EncodeToString(sum[:]) != in.SHA256 {
		return nil, errors.New("registers: the checksum does not fit: the content is damaged")
	}
	d := json.NewDecoder(bytes.NewReader(in.Entries))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("registers: entries are no list")
	}
	var entries []Entry
	for d.More() {
		if len(entries) >= MaxKeys*MaxHistory {
			return nil, fmt.Errorf("registers: more than %d entries", MaxKeys*MaxHistory)
		}
		var ej entryJSON
		if err := d.Decode(&ej); err != nil {
			return nil, fmt.Errorf("registers: entry %d: %w", len(entries)+1, err)
		}
		e, err := Decode(ej.Payload, ej.Seal)
		if err != nil {
			return nil, fmt.Errorf("registers: entry %d: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
