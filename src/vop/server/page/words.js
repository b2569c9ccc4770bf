// Words for what the API names by its own terms.

// How a view's model was made from its backbone.
export const tuning = ({ method }) => (method === "zero-shot" ? "not tuned" : `tuned (${method})`);

const WHY = { seen: "the pictures match", heard: "the words are spoken", written: "the words are in subtitles" };

// What matches the query: {words, title}, such as "Seen and heard".
export function matchedBy({ matched }) {
  const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
  return { words: capital(matched.join(" and ")), title: capital(matched.map((kind) => WHY[kind]).join(", and ")) };
}

// Whether it is worth saying what matches: not only pictures do.
export const hasWords = (moments) => moments.some(({ line }) => line);
