// Links out of docs/ lead to files of the repository, which are not in the book.
for (const link of document.querySelectorAll('main a[href^="../"]')) {
    const path = link.getAttribute("href").slice(3).replace(/\.html(#|$)/, ".md$1");
    link.href = "https://github.com/tallygate-rs/tallygate/blob/main/" + path;
}
