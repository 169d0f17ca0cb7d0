package admin

import (
	"encoding/json"
	"errors"
	"testing"
)

// FuzzDecodeBody: a body is refused with a fault that says why, or is one that
// encoding/json understands in the same way.
func FuzzDecodeBody(f *testing.F) {
	for _, seed := range []string{
		`{"host": "m3.example.net", "reason": "drill", "expect": "0.1.ns1", "force": true, "wait": "all"}`,
		`{"reason": "drill", "for": "30m"}`, `{"host": null}`, `{"host": {"a": [1, {}]}}`, `{"a": 1, "a": 2}`, `{}{}`, `[`, `{"host"`, `{"force": 1e99}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var set SetCamaster
		fuzzOne(t, data, &set, new(SetCamaster))
		if set.check() == nil {
			host, reason := set.Host, set.Reason
			if err := set.check(); err != nil || set.Host != host || set.Reason != reason || set.Wait == "" {
				t.Errorf("what was checked is not good a second time: %+v, %v", set, err)
			}
			if len(host) > 253 || len(reason) > 500 {
				t.Errorf("too long: %+v", set)
			}
		}
		var drain SetDrain
		fuzzOne(t, data, &drain, new(SetDrain))
	})
}

func fuzzOne[T comparable](t *testing.T, data []byte, got, want *T) {
	err := decodeBody(data, got)
	if err == nil {
		if err := json.Unmarshal(data, want); err != nil || *got != *want {
			t.Errorf("%q: got %+v, encoding/json has %+v, %v", data, *got, *want, err)
		}
		return
	}
	var fault *Fault
	if !errors.As(err, &fault) || fault.Status != 400 || fault.Detail == "" || len(fault.Detail) > 500 {
		t.Errorf("%q: %#v", data, err)
	}
}
