//go:build !linux

package settings

func checkClock() []Finding { return nil }
