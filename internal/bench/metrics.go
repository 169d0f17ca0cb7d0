package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseHistogram reads one histogram of seconds from Prometheus's text format.
// It must have a single set of labels.
func parseHistogram(page, name string) (histogram, error) {
	h := histogram{buckets: make(map[time.Duration]int)}
	found := false
	for line := range strings.Lines(page) {
		rest, ok := strings.CutPrefix(line, name+"_")
		if !ok {
			continue
		}
		kind, _, _ := strings.Cut(rest, "{")
		labels := ""
		if open, end := strings.IndexByte(rest, '{'), strings.LastIndexByte(rest, '}'); open >= 0 && end > open {
			labels = rest[open+1 : end]
			rest = kind + rest[end+1:]
		}
		kind, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return h, fmt.Errorf("metric line %q: %w", strings.TrimSpace(line), err)
		}
		switch kind {
		case "count":
			if found {
				return h, fmt.Errorf("histogram %s has several sets of labels", name)
			}
			found, h.count = true, int(value)
		case "sum":
			h.sum = seconds(value)
		case "bucket":
			_, bound, _ := strings.Cut(labels, `le="`)
			bound, _, _ = strings.Cut(bound, `"`)
			if bound == "+Inf" {
				continue
			}
			le, err := strconv.ParseFloat(bound, 64)
			if err != nil {
				return h, fmt.Errorf("metric line %q: %w", strings.TrimSpace(line), err)
			}
			h.buckets[seconds(le)] = int(value)
		}
	}
	if !found {
		return h, fmt.Errorf("no histogram %s", name)
	}
	return h, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
