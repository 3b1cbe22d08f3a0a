// Stands in for what is never drawn (editors).
export const loader = {};
export default {};
