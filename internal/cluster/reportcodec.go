package cluster

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of a report.
const (
	maxReport   = 8 << 20 // bytes, inflated
	maxObserved = 10000
	maxListed   = 32       // addresses, and problems
	maxText     = 1024     // bytes of any text in it
	maxMember   = 64 << 10 // bytes of what a member says of its host, as JSON
)

func deflate(r *Report) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}

func inflate(payload []byte) (*Report, error) {
	data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(payload)), maxReport+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxReport {
		return nil, fmt.Errorf("larger than %d bytes", maxReport)
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	return &r, r.check()
}

// check bounds everything that others will hold, keep on disk or show.
func (r *Report) check() error {
	if r.Observer == "" || r.Role != RoleNode && r.Role != RoleMaster || r.Boot == 0 || r.Seq == 0 {
		return errors.New("it does not say whose it is")
	}
	texts := append([]string{r.Observer, r.Datacenter, r.Release, r.Camaster, r.Version}, r.DNS...)
	texts = append(texts, r.Problems...)
	for origin, z := range r.Zones {
		texts = append(texts, origin, z.Hash)
	}
	for _, m := range r.Masters {
		texts = append(texts, m.Host, m.Detail)
	}
	addresses := 0
	if a := r.Announce; a != nil {
		texts = append(texts, a.Host, a.Datacenter)
		addresses = len(a.Addresses)
	}
	if r.Member != nil {
		if data, err := json.Marshal(r.Member); err != nil || len(data) > maxMember {
			return fmt.Errorf("what it says of its host has %d bytes: at most %d (%v)", len(data), maxMember, err)
		}
	}
	switch {
	case len(r.Masters) > maxObserved || len(r.Zones) > maxObserved || len(r.DNS) > maxListed || len(r.Problems) > maxListed || addresses > maxListed:
		return fmt.Errorf("%d masters, %d zones, %d DNS addresses, %d problems, %d addresses: that is too much", len(r.Masters), len(r.Zones), len(r.DNS), len(r.Problems), addresses)
	case slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxText }):
		return fmt.Errorf("a text in it has more than %d bytes", maxText)
	}
	return nil
}
