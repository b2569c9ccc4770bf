// Words for what the API names by its own terms.

// How a view's model was made from its backbone.
export const tuning = ({ method }) => (method === "zero-shot" ? "not tuned" : `tuned (${method})`);
