package clientv3

import (
	"time"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3/internal/balance"
)

// EndpointHealth is how well an endpoint is, as far as a client knows.
type EndpointHealth string

const (
	// EndpointConnecting: it is being connected to, for the first time or because its connection was lost; or the client
	// has made no call yet, and no connection.
	EndpointConnecting EndpointHealth = "connecting"
	// EndpointHealthy: it is connected, and nothing speaks against it.
	EndpointHealthy EndpointHealth = "healthy"
	// EndpointSuspect: it is connected, and has owed an answer for a while. Calls go elsewhere.
	EndpointSuspect EndpointHealth = "suspect"
	// EndpointDown: it cannot be connected to, or its connection was dropped because it did not answer.
	EndpointDown EndpointHealth = "down"
	// EndpointLeaderless: it answers, and says that it has no leader, or does not serve what needs one while another
	// endpoint does. Only serializable reads go to it.
	EndpointLeaderless EndpointHealth = "leaderless"
	// EndpointLearner: it answers, and says that it has no vote. Only serializable reads go to it.
	EndpointLearner EndpointHealth = "learner"
)

// EndpointState is what a client knows of one of its endpoints at one moment.
type EndpointState struct {
	// Endpoint is the endpoint as it was given to the client.
	Endpoint string
	// Health is how well it is.
	Health EndpointHealth
	// Since is when it became so.
	Since time.Time
	// Reason says why, for people.
	Reason string
	// Err is why the last attempt to connect has failed, or nil.
	Err error
	// InFlight is the number of calls and streams under way on it.
	InFlight int
}

// EndpointStates returns what the client knows of its endpoints, in the order in which they were given. Nobody is asked
// for that. Changes are also logged, at info. It returns nil for a client made with NewCtxClient.
func (c *Client) EndpointStates() []EndpointState {
	if c.endpoints == nil {
		return nil
	}
	statuses := c.endpoints.Statuses()
	states := make([]EndpointState, len(statuses))
	for i, st := range statuses {
		states[i] = EndpointState{
			Endpoint: st.Endpoint,
			Health:   EndpointHealth(st.Health.String()),
			Since:    st.Since,
			Reason:   st.Reason,
			Err:      st.Err,
			InFlight: int(st.InFlight),
		}
	}
	return states
}

// logEndpoint logs that an endpoint's health has changed.
func (c *Client) logEndpoint(change balance.Change) {
	c.logger().Info("endpoint "+change.To.Health.String(),
		zap.String("endpoint", change.To.Endpoint), zap.Stringer("before", change.From),
		zap.String("reason", change.To.Reason))
}
