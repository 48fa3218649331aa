package push

import "time"

// Hurry shortens what a subscription waits for. It is called first.
func (c *Config) Hurry() {
	hurried := usualTimes
	hurried.first, hurried.limit = 10*time.Millisecond, 40*time.Millisecond
	hurried.ping = 100 * time.Millisecond
	c.times = &hurried
}

// AnswerIn bounds how long an answer is waited for, to a ping and to the handshake.
func (c *Config) AnswerIn(limit time.Duration) { c.times.pong, c.times.dial = limit, limit }

// AskAgainIn is the time after which a server that offers no events is asked again.
func (c *Config) AskAgainIn(again time.Duration) { c.times.again = again }
